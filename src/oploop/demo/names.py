"""Names for a made-up company's customers: people and firms of many places, as such lists are in life.

Each family name comes with the Latin letters that its bearer uses in an e-mail address.
"""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where customers come from: names, what firms are called there, the currency that they pay in."""

    country: str
    currency: str
    weight: int
    given: tuple[str, ...]
    family: tuple[str, ...]  #: "Müller", or "田中/tanaka" where Latin letters cannot be derived
    firms: tuple[str, ...]  #: patterns with {f}, the founder's family name
    family_first: bool = False


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PLACES: tuple[Place, ...] = (
    Place(
        "US", "usd", 36,
        _words("Olivia Liam Emma Noah Ava Mason Sophia Lucas Harper Ethan Grace Caleb Zoe Wyatt Naomi Jayden Ruth Isaac"),
        _words("Smith Johnson Carter Brooks Hayes Whitfield Monroe Delgado Freeman Nakamura Bishop Sutton Pruitt Ellison"),
        ("{f} Logistics", "{f} & Sons", "{f} Dental Group", "{f} Outdoor Co.", "{f}'s Hardware", "{f} Labs", "Studio {f}"),
    ),
    Place(
        "IE", "eur", 6,
        _words("Aoife Seán Niamh Cillian Siobhán Oisín Róisín Darragh"),
        _words("O'Brien O'Connor Murphy Byrne O'Sullivan Kavanagh Ó_Súilleabháin MacCarthy"),
        ("{f} Freight", "{f} & Daughters", "{f} Brewing", "The {f} Press"),
    ),
    Place(
        "DE", "eur", 13,
        _words("Anke Jürgen Käthe Lukas Søren Ulrike Björn Heike Matthias Franziska Jörg Annelie"),
        _words("Müller Schäfer Groß Weiß Krüger Böhm Jäger Köhler Schröder Vogel Hübner Lindqvist"),
        ("{f} GmbH", "{f} & Söhne", "Bäckerei {f}", "{f} Werkzeugbau", "Praxis {f}", "{f} Maschinen KG"),
    ),
    Place(
        "FR", "eur", 8,
        _words("Chloé Étienne Zoé François Anaïs Jérôme Maëlle Rémi Héloïse Loïc"),
        _words("Lefèvre Dubois D'Aubigny Moreau Gauthier L'Hôpital Béranger Rousseau Chênet"),
        ("Maison {f}", "{f} et Fils", "Ateliers {f}", "Café {f}", "{f} Conseil"),
    ),
    Place(
        "GB", "gbp", 9,
        _words("Imogen Callum Priya Rhys Freya Alistair Nia Hamish Eleri Zadie"),
        _words("Hughes Ap_Rhys D'Souza MacLeod Featherstone Okafor Patel Llewellyn Ashworth"),
        ("{f} & Co", "{f} Tea Importers", "{f} Joinery Ltd", "The {f} Trust", "{f} Garden Centres"),
    ),
    Place(
        "JP", "jpy", 6,
        _words("陽菜/hina 蓮/ren 結衣/yui 大翔/hiroto 美咲/misaki 健太/kenta"),
        _words("田中/tanaka 佐藤/sato 鈴木/suzuki 高橋/takahashi 渡辺/watanabe 伊藤/ito 山本/yamamoto"),
        ("株式会社{f}", "{f}工業", "{f}商店", "{f}精密"),
        family_first=True,
    ),
    Place(
        "CN", "usd", 4,
        _words("秀英/xiuying 伟/wei 静/jing 磊/lei 婷/ting"),
        _words("王/wang 李/li 张/zhang 刘/liu 陈/chen"),
        ("{f}氏贸易", "{f}记科技"),
        family_first=True,
    ),
    Place(
        "PL", "eur", 4,
        _words("Zuzanna Łukasz Małgorzata Paweł Żaneta Michał"),
        _words("Wójcik Kowalczyk Zieliński Dąbrowski Król Łuczak"),
        ("{f} Sp. z o.o.", "Zakład {f}", "{f} Transport"),
    ),
    Place(
        "BR", "usd", 5,
        _words("João Conceição Luíza Thiago Antônia Caetano"),
        _words("Gonçalves Araújo Sant'Anna Magalhães Assunção Peixoto"),
        ("{f} Comércio", "Padaria {f}", "Grupo {f}"),
    ),
    Place(
        "IN", "usd", 5,
        _words("Lakshmi Arjun Meera Rohan Ananya Vikram Ishaan Kavya"),
        _words("Iyer Krishnamurthy Chatterjee Singh Rao Mehta Subramaniam"),
        ("{f} Textiles", "{f} & Brothers", "{f} Infotech"),
    ),
    Place(
        "NG", "usd", 2,
        _words("Chidi Adaeze Olúwáṣeun Ngozi Tunde"),
        _words("Okonkwo Adébáyọ̀ Nwosu Eze Balogun"),
        ("{f} Ventures", "{f} Foods"),
    ),
    Place(
        "TR", "usd", 2,
        _words("İpek Çağla Emre Gülşen Şahin"),
        _words("Yılmaz Öztürk Güneş Aydın Çelik"),
        ("{f} Tekstil", "{f} Gıda"),
    ),
)  # fmt: skip

_LATIN = str.maketrans({"ß": "ss", "ø": "o", "Ø": "o", "ł": "l", "Ł": "l", "ı": "i", "æ": "ae", "đ": "d"})


@dataclass(frozen=True, slots=True)
class Person:
    """A name as it is written, and the two halves of an e-mail address."""

    name: str
    local: str
    family: str


def slug(text: str) -> str:
    """Latin letters and digits of a text, lower case: what stands in an address."""
    plain = unicodedata.normalize("NFKD", text.translate(_LATIN))
    return "".join(c for c in plain.lower() if c.isascii() and c.isalnum())


def _both(word: str) -> tuple[str, str]:
    """(as written, in Latin letters)."""
    written, _, latin = word.partition("/")
    written = written.replace("_", " ")
    return written, latin or slug(written)


def person(chance: random.Random, place: Place) -> Person:
    """Somebody from there."""
    given, given_latin = _both(chance.choice(place.given))
    family, family_latin = _both(chance.choice(place.family))
    name = f"{family} {given}" if place.family_first else f"{given} {family}"
    return Person(name, f"{given_latin}.{family_latin}", family)


def firm(chance: random.Random, place: Place, founder: Person) -> str:
    """What a firm founded by that person is called."""
    return chance.choice(place.firms).format(f=founder.family)
