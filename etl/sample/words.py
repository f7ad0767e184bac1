"""The words that the sample shop is made of, as plain data: category tree, product nouns.

Everything is bilingual. A term is a modifier and a noun; :mod:`etl.sample.world` composes them.
"""

from __future__ import annotations

# Indented lines are nodes: "English / Chinese [family of attributes]", the family inherited downwards.
# "*" lines are the nouns of the leaf above: English forms | Chinese forms | the modifiers that make terms of it.
# A bare noun is never a term: it is what shoppers type when they look for something broader.
TREE = """
Shoes / 鞋靴 [shoe]
  Athletic Shoes / 运动鞋
    Sneakers / 跑鞋球鞋
      * shoes, trainers | 鞋 | running, trail running, walking, basketball, tennis, badminton, golf, cycling, training
      * sneakers, kicks | 板鞋, 滑板鞋 | canvas, platform, retro, women's, men's, kids', light up
    Outdoor Shoes / 户外鞋
      * boots, tall boots | 靴, 靴子 | hiking, snow, rain, work, motorcycle, fur lined, leather, ankle
      * wading shoes, aqua shoes | 溯溪鞋, 涉水鞋 | women's, men's, kids', quick dry
  Casual Shoes / 休闲鞋
    Sandals & Slippers / 凉鞋拖鞋
      * sandals, open toes | 凉鞋 | women's, men's, kids', beach, platform, leather, orthopedic
      * slippers, house shoes | 拖鞋, 家居鞋 | memory foam, plush, bathroom, travel, women's, men's, kids', cooling
    Dress Shoes / 皮鞋
      * loafers, slip-ons | 乐福鞋, 一脚蹬 | women's, men's, leather, suede, wide fit, platform
      * heels, pumps | 高跟鞋 | wedding, party, ankle strap, block, low, pointed
Clothing / 服装 [wear]
  Dresses & Skirts / 裙装
    Dresses / 连衣裙
      * dress, gown | 连衣裙, 长裙 | summer, evening, wedding, floral, maternity, lace, plus size, knitted, girls', office
    Skirts / 半身裙
      * skirt | 半身裙, 短裙 | pleated, denim, leather, tennis, plus size, knitted, office, floral
  Tops / 上装
    T-Shirts & Shirts / T恤衬衫
      * t-shirt, tee | T恤, 短袖 | graphic, oversized, running, women's, men's, kids', cotton, cooling, maternity
      * shirt, button-down | 衬衫, 衬衣 | linen, denim, office, plaid, men's, women's, oversized, wrinkle free
    Sweaters / 毛衣针织
      * sweater, jumper | 毛衣, 针织衫 | cashmere, turtleneck, oversized, men's, women's, kids', christmas, striped
      * hoodie, hooded sweatshirt | 卫衣, 连帽衫 | zip up, oversized, fleece, men's, women's, kids', graphic, heated
  Outerwear / 外套
    Jackets / 夹克
      * jacket | 夹克, 外套 | rain, down, leather, denim, ski, running, fleece, heated, motorcycle, women's, men's, kids'
      * vest, gilet | 马甲, 背心 | down, fleece, heated, fishing, running, men's, women's, reflective
    Coats / 大衣
      * coat, overcoat | 大衣 | wool, trench, maternity, plus size, double breasted, women's, men's
  Bottoms / 下装
    Trousers / 裤子
      * pants, trousers | 裤, 裤子 | yoga, hiking, cargo, linen, ski, maternity, office, wide leg, fleece
      * jeans | 牛仔裤 | skinny, wide leg, men's, women's, plus size, maternity, retro, stretch
      * shorts | 短裤 | running, cycling, beach, cargo, denim, basketball, men's, women's, quick dry
  Underwear & Sleepwear / 内衣睡衣
    Socks / 袜子
      * socks | 袜, 袜子 | compression, hiking, wool, running, ankle, christmas, diabetic, kids', non slip
    Pyjamas / 睡衣家居服
      * pajamas, sleepwear | 睡衣, 家居服 | silk, flannel, maternity, christmas, kids', men's, women's, cotton
      * bra, brassiere | 文胸, 内衣 | sports, nursing, seamless, lace, strapless, plus size, wireless
Bags & Luggage / 箱包 [bag]
  Backpacks / 双肩包
    Everyday Backpacks / 日用双肩包
      * backpack, rucksack | 背包, 双肩包 | hiking, laptop, school, travel, camera, mini, anti theft, waterproof, diaper
    Hydration Packs / 水袋包
      * hydration pack | 水袋包, 补水包 | running, cycling, hiking, kids'
  Handbags / 手提包
    * tote bag, shopper | 托特包, 购物袋 | canvas, leather, work, beach, foldable, insulated, straw
    * crossbody bag, shoulder bag | 斜挎包, 单肩包 | leather, canvas, small, anti theft, men's, chain, nylon, quilted
    * wallet, billfold | 钱包, 卡包 | leather, slim, women's, men's, travel, rfid, zip around
  Luggage / 行李箱
    * suitcase, luggage | 行李箱, 拉杆箱 | carry on, hard shell, kids', aluminium, expandable, lightweight
    * duffel bag, holdall | 旅行袋, 健身包 | gym, travel, waterproof, rolling, foldable, leather
Kitchen / 厨房 [kitchen]
  Small Appliances / 厨房小电器
    Kettles & Coffee / 水壶咖啡
      * kettle | 水壶, 热水壶 | electric, gooseneck, whistling, travel, stainless steel, glass, camping, temperature control
      * coffee maker, coffee machine | 咖啡机 | espresso, drip, capsule, portable, cold brew, single serve, commercial
      * coffee grinder, bean mill | 磨豆机, 咖啡研磨机 | manual, electric, burr, portable, commercial
    Cooking Appliances / 烹饪电器
      * rice cooker | 电饭煲, 电饭锅 | mini, induction, multifunction, low sugar, pressure, commercial, travel
      * oven | 烤箱 | toaster, pizza, steam, countertop, convection, outdoor
      * fryer | 炸锅 | air, deep, double basket, commercial, mini
    Blenders & Mixers / 搅拌料理
      * blender, smoothie maker | 榨汁机, 料理机 | portable, immersion, high speed, baby food, glass, commercial, quiet
      * mixer | 打蛋器, 搅拌机 | stand, hand, dough, commercial, cordless
  Cookware / 锅具 [cook]
    Pans & Pots / 炒锅汤锅
      * frying pan, skillet | 煎锅, 平底锅 | cast iron, non stick, ceramic, stainless steel, copper, induction, mini
      * pot, saucepan | 汤锅, 奶锅 | stainless steel, enamel, ceramic, glass, camping, pressure, hot
    Bakeware / 烘焙模具
      * baking tray, oven sheet | 烤盘 | non stick, silicone, ceramic, aluminium, muffin, pizza
      * cake mould, cake tin | 蛋糕模, 蛋糕模具 | silicone, non stick, mini, heart shaped, bundt
  Tableware / 餐具水具 [cook]
    Cups & Bottles / 杯壶
      * mug, cup | 马克杯, 杯子 | travel, ceramic, glass, enamel, christmas, heated, insulated, kids'
      * water bottle, flask | 水杯, 保温杯 | stainless steel, glass, kids', sports, insulated, filter, foldable, baby
    Knives & Boards / 刀具砧板
      * knife | 刀, 刀具 | chef's, bread, paring, ceramic, folding, steak, fruit
      * cutting board, chopping board | 砧板, 菜板 | bamboo, wooden, plastic, stainless steel, foldable
      * lunch box, bento | 饭盒, 便当盒 | stainless steel, glass, kids', heated, insulated, bamboo, leakproof
Home / 家居 [home]
  Bedding / 床上用品
    * pillow | 枕头, 枕 | memory foam, latex, down, neck, pregnancy, cooling, travel, kids', silk
    * blanket, throw | 毯子, 盖毯 | heated, weighted, fleece, knitted, baby, picnic, cooling, wool
    * duvet, comforter | 被子, 羽绒被 | down, summer, silk, weighted, kids', wool, cooling
    * mattress | 床垫 | memory foam, latex, inflatable, foldable, baby, spring, floor
    * bed sheet, fitted sheet | 床单, 床笠 | cotton, silk, flannel, linen, baby, waterproof, cooling
  Furniture / 家具
    Chairs / 椅子
      * chair | 椅, 椅子 | office, gaming, dining, folding, rocking, camping, beach, kids', massage, bar
      * sofa, couch | 沙发 | leather, corner, folding, kids', inflatable, velvet, recliner
    Tables & Storage / 桌柜
      * desk | 书桌, 桌 | standing, kids', corner, foldable, gaming, wooden, glass, l shaped
      * shelf, rack | 置物架, 架子 | floating, corner, wooden, metal, bathroom, wall mounted, kitchen
      * storage box, storage bin | 收纳箱, 收纳盒 | foldable, plastic, fabric, wooden, under bed, kids', makeup
      * hanger | 衣架 | wooden, velvet, folding, baby, plastic, stainless steel
  Lighting / 灯具 [light]
    * lamp | 灯, 台灯 | desk, floor, bedside, salt, clip on, touch, kids', solar, smart, moon
    * string lights, fairy lights | 灯串, 彩灯 | solar, christmas, outdoor, curtain, battery, wedding
    * flashlight, torch | 手电筒, 电筒 | rechargeable, tactical, mini, waterproof, kids', diving
    * ceiling light, pendant light | 吸顶灯, 吊灯 | bedroom, crystal, kitchen, smart, retro, kids'
  Bathroom & Cleaning / 卫浴清洁
    * towel | 毛巾, 浴巾 | bath, beach, cotton, hair, microfibre, gym, baby, bamboo
    * shower head | 花洒, 淋浴头 | rain, filter, handheld, high pressure, wall mounted
    * vacuum cleaner, hoover | 吸尘器 | cordless, robot, handheld, car, commercial, bagless, quiet
    * mop | 拖把 | steam, spin, flat, electric, microfibre
    * curtain, drape | 窗帘, 帘子 | blackout, shower, linen, velvet, kids', bamboo
Electronics / 数码电器 [tech]
  Audio / 影音
    Headphones / 耳机
      * headphones, headset | 耳机, 头戴耳机 | wireless, noise cancelling, gaming, kids', studio, bone conduction, sports
      * speaker, loudspeaker | 音箱, 音响 | bluetooth, smart, outdoor, waterproof, bookshelf, party, mini
      * microphone, mic | 麦克风, 话筒 | wireless, usb, karaoke, studio, clip on, gaming
  Computers / 电脑外设
    Input Devices / 键鼠
      * keyboard | 键盘 | mechanical, wireless, gaming, foldable, ergonomic, mini, silent
      * mouse | 鼠标 | wireless, gaming, ergonomic, vertical, silent, travel
    Displays & Storage / 显示存储
      * monitor, display | 显示器, 屏幕 | gaming, curved, portable, ultrawide, 4k, touch
      * hard drive, external disk | 硬盘, 移动硬盘 | portable, solid state, rugged, gaming
      * stand, holder | 支架 | laptop, phone, tablet, monitor, foldable, car
  Phones & Wearables / 手机穿戴
    Phone Accessories / 手机配件
      * phone case, phone cover | 手机壳, 保护壳 | silicone, leather, clear, rugged, magnetic, waterproof, wallet
      * charger, charging adapter | 充电器, 充电头 | wireless, car, travel, fast, solar, magnetic, laptop
      * power bank, battery pack | 充电宝, 移动电源 | solar, mini, magnetic, fast, laptop, rugged
      * cable, cord | 数据线, 充电线 | braided, magnetic, fast, retractable, right angle
    Watches / 手表
      * watch | 手表, 腕表 | smart, diving, kids', mechanical, women's, men's, retro, running, tactical
  Cameras / 摄影摄像
    * camera, cam | 相机, 摄像机 | instant, action, security, kids', trail, baby, underwater, wireless
    * tripod | 三脚架 | travel, phone, carbon fibre, mini, flexible
Beauty & Care / 美妆个护 [beauty]
  Skin Care / 护肤
    * face cream, moisturiser | 面霜, 保湿霜 | anti ageing, whitening, night, sensitive skin, men's, oil control, baby
    * face mask, sheet mask | 面膜 | clay, overnight, hydrating, whitening, charcoal, men's
    * sunscreen, sunblock | 防晒霜, 防晒乳 | kids', sports, sensitive skin, tinted, waterproof, oil control
    * cleanser, face wash | 洁面乳, 洗面奶 | foaming, gel, men's, sensitive skin, charcoal, oil control
  Make-up / 彩妆
    * lipstick | 口红, 唇膏 | matte, glossy, long lasting, tinted, moisturising, nude
    * foundation | 粉底液, 粉底 | matte, long lasting, liquid, full coverage, moisturising
    * makeup brush, cosmetic brush | 化妆刷, 美妆刷 | foundation, travel, eyeshadow, powder, retractable
  Hair / 美发
    * hair dryer, blow dryer | 吹风机, 电吹风 | travel, ionic, foldable, commercial, cordless, quiet
    * shampoo, hair wash | 洗发水, 洗发露 | anti dandruff, anti hair loss, baby, dry, moisturising, men's, silicone free
    * hair clipper, hair trimmer | 理发器, 电推剪 | cordless, baby, men's, quiet, waterproof, commercial
  Oral & Shaving / 口腔剃须
    * toothbrush | 牙刷 | electric, kids', bamboo, travel, soft, sonic
    * razor, shaver | 剃须刀, 刮胡刀 | electric, women's, safety, travel, disposable, waterproof
Baby & Toys / 母婴玩具 [baby]
  Baby Gear / 婴儿用品
    * stroller, pushchair | 婴儿车, 手推车 | lightweight, double, jogging, travel, folding
    * car seat, booster seat | 安全座椅, 增高垫 | infant, convertible, portable, rotating
    * baby bottle, feeding bottle | 奶瓶 | glass, anti colic, silicone, travel, wide neck
    * diaper, nappy | 纸尿裤, 尿不湿 | swim, overnight, cloth, newborn, bamboo, pull up
  Toys / 玩具
    Learning Toys / 益智玩具
      * blocks, building bricks | 积木 | wooden, magnetic, foam, castle, train, marble run
      * puzzle, jigsaw | 拼图 | wooden, 1000 piece, floor, kids', 3d, glow in the dark
    Play / 玩乐
      * doll | 娃娃, 玩偶 | fashion, plush, baby, reborn, knitted
      * toy car, model car | 玩具车, 模型车 | remote control, wooden, ride on, pull back, die cast
      * drone, quadcopter | 无人机, 航拍机 | mini, camera, kids', folding, racing
Sports & Outdoors / 运动户外 [sport]
  Fitness / 健身
    * mat, exercise pad | 垫, 垫子 | yoga, camping, gym, kids', picnic, non slip
    * dumbbell, hand weight | 哑铃 | adjustable, rubber, women's, neoprene, cast iron
    * resistance band, exercise band | 弹力带, 拉力带 | fabric, loop, latex, rehab
    * bike, bicycle | 自行车, 单车 | mountain, road, exercise, folding, kids', electric, balance
  Camping / 露营
    * tent | 帐篷 | camping, beach, pop up, family, ultralight, kids', winter
    * sleeping bag | 睡袋 | down, winter, summer, kids', double, ultralight, baby
    * stove, burner | 炉, 炉具 | camping, alcohol, wood, portable, induction, folding
  Ball & Water Sports / 球类水上
    * racket, racquet | 球拍, 拍子 | tennis, badminton, carbon fibre, kids', beach
    * goggles | 护目镜, 眼镜 | swim, ski, motorcycle, kids', diving, safety
    * gloves | 手套 | ski, cycling, gym, motorcycle, winter, heated, leather, work
    * helmet | 头盔 | bike, motorcycle, ski, climbing, kids', folding
    * fishing rod, fishing pole | 鱼竿, 钓竿 | travel, carbon fibre, kids', sea, ice
Pets / 宠物 [pet]
  Dogs & Cats / 猫狗用品
    * bed, nest | 窝, 床 | dog, cat, heated, orthopedic, outdoor, cooling
    * pet food | 宠物粮, 主粮 | puppy, kitten, grain free, senior, freeze dried, wet
    * leash, lead | 牵引绳, 遛狗绳 | retractable, reflective, hands free, leather, nylon, training
    * carrier | 航空箱, 外出包 | cat, dog, rolling, airline approved, backpack, foldable
    * litter box | 猫砂盆 | self cleaning, enclosed, large, stainless steel, foldable
  Fish & Birds / 水族鸟类
    * aquarium, fish tank | 鱼缸, 水族箱 | mini, desktop, glass, curved, smart
    * cage | 笼, 笼子 | bird, hamster, rabbit, parrot, travel, large
Tools & Garden / 工具园艺 [tool]
  Power Tools / 电动工具
    * drill, power drill | 电钻, 手电钻 | cordless, hammer, mini, magnetic, bench
    * saw | 锯, 锯子 | chain, circular, folding, hand, table, pruning
    * screwdriver | 螺丝刀, 起子 | electric, precision, ratchet, magnetic, insulated
  Garden / 园艺
    * hose, water pipe | 水管, 软管 | garden, expandable, retractable, high pressure, soaker
    * planter, flower pot | 花盆, 花槽 | ceramic, hanging, self watering, plastic, wooden, wall mounted
    * umbrella, parasol | 伞, 遮阳伞 | folding, beach, patio, kids', golf, automatic
Office & School / 办公文具 [office]
  Writing / 书写
    * pen | 笔, 中性笔 | fountain, gel, ballpoint, calligraphy, erasable, brush
    * notebook, journal | 笔记本, 本子 | leather, dotted, spiral, waterproof, reusable, travel
    * pencil case, pen pouch | 笔袋, 文具盒 | canvas, kids', silicone, large, clear
  Machines / 办公设备
    * printer | 打印机 | photo, label, portable, laser, wireless, 3d
    * calculator | 计算器 | scientific, desktop, solar, graphing, mini
    * shredder | 碎纸机 | mini, office, commercial, electric, quiet
"""
