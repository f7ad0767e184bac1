"""Attributes, colours, parts of invented names and phrases of titles, as plain data (English, Chinese)."""

from __future__ import annotations

# Two slots a family; a title shows a value of each at times. "English/Chinese", comma separated.
ATTRIBUTES = {
    "shoe": (
        "EU 36/36码, EU 38/38码, EU 39/39码, EU 41/41码, EU 43/43码, EU 45/45码",
        "mesh upper/网面, EVA midsole/EVA中底, lace-up/系带, arch support/足弓支撑",
    ),
    "wear": (
        "size S/S码, size M/M码, size L/L码, size XL/XL码, 3XL/3XL",
        "regular fit/常规版, side pockets/侧兜, crew cut/圆领款",
    ),
    "bag": (
        "12 L/12升, 20 L/20升, 28 L/28升, 36 L/36升, 45 L/45升",
        "YKK zips/YKK拉链, padded straps/加厚肩带, water repellent/防泼水",
    ),
    "kitchen": ("0.8 L/0.8升, 1.7 L/1.7升, 3 L/3升, 5 L/5升", "800 W/800瓦, 1500 W/1500瓦, 2000 W/2000瓦, BPA free/不含BPA"),
    "cook": (
        "20 cm/20厘米, 24 cm/24厘米, 28 cm/28厘米, 350 ml/350毫升",
        "dishwasher safe/可机洗, food grade/食品级, set of 3/三件套",
    ),
    "home": (
        "50x70 cm/50x70厘米, 120x200 cm/120x200厘米, 150x200 cm/150x200厘米",
        "OEKO-TEX/环保认证, easy assembly/简易安装, set of 2/两件装",
    ),
    "light": ("3000K/3000K暖光, 4000K/4000K自然光, 6500K/6500K白光", "dimmable/可调光, 800 lumen/800流明, E27/E27灯头"),
    "tech": (
        "USB-C/Type-C接口, 10 h/10小时续航, 30 h/30小时续航, 2.4G/2.4G",
        "RGB/RGB, 5V 3A/5V 3A, plug and play/即插即用, gen 2/二代",
    ),
    "beauty": (
        "50 ml/50ml, 100 ml/100ml, 200 ml/200ml, 3.5 g/3.5g",
        "paraben free/无添加, dermatologist tested/皮肤科测试, gift box/礼盒装",
    ),
    "baby": (
        "0-6 m/0-6个月, 6-12 m/6-12个月, age 3+/3岁以上, age 6+/6岁以上",
        "CE tested/CE认证, rounded edges/圆角, non toxic/无毒",
    ),
    "sport": ("61 cm/61厘米, 173 cm/173厘米, 2.1 m/2.1米, 10 kg/10公斤", "carry bag/附收纳袋, TPE/TPE, anti sweat/吸汗"),
    "pet": (
        "2 kg/2公斤, 5 kg/5公斤, up to 8 kg/8公斤以内, up to 20 kg/20公斤以内",
        "chew proof/耐咬, breathable mesh/透气网, odour lock/除味",
    ),
    "tool": ("12 V/12伏, 18 V/18伏, 20 V/20伏, 15 m/15米", "brushless/无刷, case included/带工具箱, rust proof/防锈"),
    "office": ("A4/A4, A5/A5, 0.5 mm/0.5毫米, B6/B6", "pack of 6/6个装, refillable/可替换芯, 120 pages/120页"),
}

COLOURS = """
black/黑色, white/白色, grey/灰色, navy/藏青, red/红色, blue/蓝色, green/绿色, pink/粉色, beige/米色, brown/棕色
purple/紫色, yellow/黄色
"""

# What a title says of an item of a modified term, without saying the term.
HINTS = """
running: cushioned foam/缓震回弹; trail running: lugged outsole/大齿抓地; basketball: high cut/高帮护踝
tennis: court grip/硬地耐磨; hiking: rocky terrain/山野抓地; camping: base camp/营地; travel: packable/轻装出行
yoga: studio flow/裸感; gym: iron zone/撸铁; ski: powder/粉雪; women's: for her/她系列; men's: for him/他系列
kids': little ones/小朋友; baby: tiny hands/新手爸妈; maternity: mum to be/准妈妈
waterproof: IPX7/IPX7, storm proof/暴雨无忧; leather: full grain/头层; stainless steel: 304 grade/304材质
silicone: BPA-0/软胶; glass: borosilicate/高硼硅; wooden: solid oak/橡木; bamboo: moso/毛竹; ceramic: glazed/釉面
memory foam: slow rebound/慢回弹; wool: merino/美利奴; down: 700 fill/700蓬; silk: mulberry/桑蚕; cotton: combed/精梳
linen: flax/雨露麻; heated: 3 heat levels/三档温控; cooling: ice fibre/冰丝; wireless: BT 5.3/BT5.3, no wires/摆脱线束
gaming: low latency/低延迟, esports/战队同款; electric: 1-touch start/一键启动; cordless: Li-ion/锂电
portable: pocket size/随身; mini: palm size/掌心大小; foldable: folds flat/收起不占地; folding: tuck away/一秒收拢
travel: cabin friendly/差旅; noise cancelling: ANC/ANC主动; smart: app control/APP操控; solar: sun powered/光能
commercial: for cafes/餐饮店; quiet: 38 dB/38分贝; christmas: santa/圣诞老人; wedding: bridal/新娘
summer: light breeze/清凉; winter: minus 20/零下20度; office: 9 to 5/通勤; beach: seaside/海边; retro: 70s look/怀旧
organic: GOTS/GOTS; insulated: keeps warm 12 h/12小时长效; magnetic: snap on/一吸即合; plus size: curvy/微胖
"""

# Latin syllable:character used to write it in Chinese. Names are made of two or three.
SYLLABLES = """
nor:诺 vik:维 sol:索 lan:兰 tor:托 mir:米 kel:凯 dra:卓 zen:臻 ova:欧 fer:菲 lum:璐 pax:派 rin:林 tes:特 qua:夸 bel:贝
cor:科 hal:哈 jun:君 kai:恺 lex:莱 mon:蒙 ner:妮 olm:奥 pri:普 rav:瑞 sti:思 tul:图 urs:乌 ven:文 wil:威 xen:珊 yor:约
zel:泽 arc:雅 bra:布 cle:克 dun:顿 eld:艾 fyn:芬 gri:格 hux:胡 ist:伊 jor:乔 kry:柯 lyr:莉 mav:玛 nix:尼 orb:奔 pel:佩
que:奎 ros:罗 syl:希 thal:塔 umb:翁 vex:薇 wyn:温 yar:雅 zor:佐
"""

# Two of these make a series name of a Chinese brand.
SERIES_CHARACTERS = (
    "云山岚星晨雨风雪霜月光影松竹梅兰青蓝墨白玄赤金银川海江湖峰岭泉溪鹤鹿燕鲸虎龙凤翼羽舟帆逸悠恒臻御锐极曜朗澈煦禾麦苒沐"
)

SERIES_SUFFIXES = ("", "", "", "", " Pro", " Air", " One", " Plus", " Max", " II")

# A phrase with another term in it: what a dictionary falls for.
MISLEADING_EN = ("goes with {}", "compatible with {}", "free gift {}", "store next to your {}", "not for {}")
MISLEADING_ZH = ("可搭配{}", "送{}", "适用于{}", "{}伴侣", "非{}")

PROMOTIONS = ("New", "Sale", "2024", "【新款】", "【包邮】", "限时特价", "Hot deal", "官方正品")
