"""Modifiers that make terms of the nouns of :mod:`etl.sample.words`, as plain data (English, Chinese)."""

from __future__ import annotations

# Modifiers that go with every noun of a family, after its own.
FAMILY_MODIFIERS = {
    "shoe": "winter, vegan, waterproof",
    "wear": "thermal, summer, petite, organic",
    "bag": "vintage, large, kids'",
    "kitchen": "smart, retro, automatic",
    "cook": "large, vintage, non slip",
    "home": "outdoor, large, organic",
    "light": "wall mounted, motion sensor, vintage",
    "tech": "retro, dual, waterproof",
    "beauty": "organic, vegan, fragrance free",
    "baby": "organic, montessori, large",
    "sport": "professional, beginner, women's",
    "pet": "large, waterproof, washable",
    "tool": "professional, mini, heavy duty",
    "office": "retro, portable, recycled",
}

# English forms = Chinese forms; the first of each is the usual one.
MODIFIERS = """
running = 跑步; trail running = 越野跑步; walking = 健走; basketball = 篮球; tennis = 网球; badminton = 羽毛球
golf = 高尔夫; cycling = 骑行; training = 训练; hiking, trekking = 登山, 徒步; camping = 露营; travel = 旅行, 旅游
yoga = 瑜伽; gym = 健身; swim = 游泳; ski = 滑雪; fishing = 垂钓; climbing = 攀岩; diving = 潜水; racing = 竞速
sports = 运动; jogging = 慢跑; mountain = 山地; women's, ladies = 女士, 女款; men's = 男士, 男款
kids', children's = 儿童, 童款; girls' = 女童; baby = 婴儿, 宝宝; infant = 幼儿; newborn = 新生儿; puppy = 幼犬
kitten = 幼猫; dog = 狗狗; cat = 猫咪; bird = 鸟; hamster = 仓鼠; rabbit = 兔子; parrot = 鹦鹉; senior = 老年
family = 家庭; diabetic = 糖尿病; beginner = 入门; professional = 专业; petite = 小个子; pregnancy = 孕妇
maternity = 孕期; nursing = 哺乳; plus size = 大码; wide fit = 宽版; slim = 超薄; small = 小号; large = 大号
mini = 迷你; low = 低; leather = 真皮, 皮质; suede = 麂皮; canvas = 帆布; denim = 牛仔; lace = 蕾丝; knitted = 针织
cotton = 纯棉; linen = 亚麻; silk = 真丝; wool = 羊毛; cashmere = 羊绒; fleece = 抓绒; down = 羽绒; flannel = 法兰绒
velvet = 天鹅绒; plush = 毛绒; nylon = 尼龙; straw = 草编; fabric = 布艺; rubber = 橡胶; latex = 乳胶
memory foam = 记忆棉; foam = 泡沫; neoprene = 潜水料; microfibre = 超细纤维; silicone = 硅胶; plastic = 塑料
glass = 玻璃; ceramic = 陶瓷; enamel = 搪瓷; crystal = 水晶; bamboo = 竹制; wooden = 木制, 实木; wood = 柴火
metal = 金属; stainless steel = 不锈钢; cast iron = 铸铁; copper = 铜; aluminium = 铝合金; carbon fibre = 碳纤维
die cast = 合金; vegan = 素食; braided = 编织; retro = 复古; vintage = 古典; floral = 碎花; plaid = 格子; striped = 条纹
graphic = 印花; christmas = 圣诞; party = 派对; wedding = 婚礼; evening = 晚宴; summer = 夏季; winter = 冬季
beach = 沙滩; rain = 雨; snow = 雪地; outdoor = 户外; patio = 庭院; garden = 花园; sea = 海; ice = 冰; road = 公路
office = 办公, 职场; work = 工作; school = 学生; kitchen = 厨房; bathroom = 浴室; bedroom = 卧室; bedside = 床头
dining = 餐厅; bar = 吧台; desk = 书房; desktop = 桌面; floor = 落地; corner = 转角; car = 车载; studio = 录音室
security = 安防; trail = 野外; oversized = 宽松; turtleneck = 高领; wrinkle free = 免烫; zip up = 拉链
zip around = 全拉链; heated = 加热, 发热; reflective = 反光; trench = 风衣款; double breasted = 双排扣; cargo = 工装
wide leg = 阔腿; skinny = 紧身; stretch = 弹力; quick dry = 速干; compression = 压缩; ankle = 短筒; ankle strap = 绑带
non slip = 防滑; seamless = 无痕; strapless = 无肩带; thermal = 保暖; pleated = 百褶; fur lined = 加绒; platform = 厚底
light up = 发光; orthopedic = 矫形; cooling = 凉感; block = 粗跟; pointed = 尖头; organic = 有机; washable = 可洗
motorcycle = 摩托; laptop = 笔记本电脑; camera = 相机; phone = 手机款; tablet = 平板; monitor = 显示屏
anti theft = 防盗; waterproof = 防水; diaper = 妈咪; foldable, collapsible = 可折叠; folding = 折叠; insulated = 隔热
chain = 链条; quilted = 菱格; rfid = 防磁; carry on = 登机; hard shell = 硬壳; expandable = 可扩展; lightweight = 轻便
ultralight = 超轻; rolling = 滚轮; gooseneck = 鹅颈; whistling = 鸣笛; temperature control = 控温; electric = 电动
manual = 手动; automatic = 自动; espresso = 意式; drip = 滴滤; capsule = 胶囊; portable = 便携; cold brew = 冷萃
single serve = 单杯; commercial = 商用; burr = 锥刀; induction = 电磁; multifunction = 多功能; low sugar = 低糖
pressure = 压力; toaster = 吐司; pizza = 披萨; steam = 蒸汽; countertop = 台面; convection = 热风; air = 空气
deep = 深油; hot = 火锅; double basket = 双篮; immersion = 浸入式; high speed = 高速; baby food = 辅食; quiet = 低噪
silent = 静音; stand = 台式; hand = 手持; handheld = 手握式; dough = 揉面; cordless = 充电式; wireless = 无线
non stick = 不粘; muffin = 玛芬; heart shaped = 心形; bundt = 咕咕霍夫; filter = 过滤; chef's = 主厨; bread = 面包
paring = 削皮; steak = 牛排; fruit = 水果; leakproof = 防漏; neck = 护颈; weighted = 加重; picnic = 野餐
inflatable = 充气; spring = 弹簧; gaming = 电竞, 游戏; rocking = 摇摇; massage = 按摩; recliner = 躺式; standing = 升降
l shaped = 转角型; floating = 悬浮; wall mounted = 壁挂; under bed = 床底; makeup = 化妆品; salt = 盐; clip on = 夹式
touch = 触控; solar = 太阳能; smart = 智能; moon = 月球; curtain = 窗帘款; battery = 电池; rechargeable = 可充电
tactical = 战术; bath = 沐浴; hair = 干发; high pressure = 高压; robot = 扫地机器人; bagless = 无尘袋; spin = 旋转
flat = 平板式; blackout = 遮光; shower = 淋浴; noise cancelling = 降噪; bone conduction = 骨传导; bluetooth = 蓝牙
bookshelf = 书架; usb = USB; karaoke = K歌; mechanical = 机械; ergonomic = 人体工学; vertical = 立式; curved = 曲面
ultrawide = 带鱼屏; 4k = 4K; solid state = 固态; rugged = 三防; clear = 透明; magnetic = 磁吸, 磁性; wallet = 卡夹
fast = 快充; retractable = 伸缩; right angle = 弯头; dual = 双口; instant = 拍立得; action = 运动型; underwater = 水下
flexible = 八爪鱼; anti ageing = 抗衰; whitening = 美白; night = 夜间; sensitive skin = 敏感肌; oil control = 控油
clay = 泥; overnight = 夜用; hydrating = 补水; charcoal = 竹炭; tinted = 有色; foaming = 泡沫型; gel = 啫喱
matte = 哑光; glossy = 镜面; long lasting = 持久; moisturising = 滋润; nude = 裸色; liquid = 液体
full coverage = 高遮瑕; foundation = 底妆; eyeshadow = 眼影; powder = 散粉; ionic = 负离子; anti dandruff = 去屑
anti hair loss = 防脱; dry = 免洗; silicone free = 无硅油; fragrance free = 无香; soft = 软毛; sonic = 声波
safety = 安全; disposable = 一次性; double = 双人; convertible = 可转换; rotating = 可旋转; anti colic = 防胀气
wide neck = 宽口; cloth = 布; pull up = 拉拉; castle = 城堡; train = 火车; marble run = 滚珠; 1000 piece = 1000片
3d = 3D; glow in the dark = 夜光; fashion = 换装; reborn = 仿真; remote control = 遥控; ride on = 骑乘; pull back = 回力
montessori = 蒙氏; adjustable = 可调; loop = 环形; rehab = 康复; exercise = 健身房; balance = 平衡; pop up = 速开
alcohol = 酒精; bike = 单车款; grain free = 无谷; freeze dried = 冻干; wet = 湿; hands free = 腰带式
airline approved = 航空; backpack = 双肩; self cleaning = 自动清洁; enclosed = 封闭式; hammer = 冲击; bench = 台钻式
circular = 圆盘; table = 桌上; pruning = 修枝; precision = 精密; ratchet = 棘轮; soaker = 渗灌; hanging = 吊挂
self watering = 自吸水; heavy duty = 重型; fountain = 钢; ballpoint = 圆珠; calligraphy = 书法; erasable = 可擦
brush = 毛; dotted = 点阵; spiral = 线圈; reusable = 可重复; recycled = 再生; photo = 照片; label = 标签; laser = 激光
scientific = 科学; graphing = 图形; motion sensor = 人体感应
"""
