"""Vehicles: body types, paints, and what tells one vehicle of a type from another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from iv_pipeline.demo.shapes import RGB, Face, Part, Prism, box, disc

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAINTS: dict[str, RGB] = {
    "white": (236, 236, 232),
    "silver": (164, 170, 176),
    "black": (38, 39, 44),
    "red": (186, 34, 36),
    "blue": (36, 78, 160),
    "green": (40, 112, 70),
    "yellow": (232, 186, 40),
    "brown": (120, 78, 50),
}
"""Colors that vehicles come in."""

_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "sedan": {
        "length": (4.45, 4.95), "width": (1.74, 1.88), "height": (1.36, 1.48), "sill": (0.22, 0.3),
        "belt": (0.86, 0.96), "bonnet": (1.15, 1.4), "deck": (0.75, 1.05), "rake_front": (0.65, 0.85),
        "rake_rear": (0.55, 0.85), "wheel": (0.3, 0.34),
    },
    "hatchback": {
        "length": (3.5, 4.05), "width": (1.62, 1.76), "height": (1.44, 1.58), "sill": (0.24, 0.32),
        "belt": (0.88, 1.0), "bonnet": (0.75, 1.0), "deck": (0.06, 0.2), "rake_front": (0.55, 0.8),
        "rake_rear": (0.3, 0.6), "wheel": (0.28, 0.32),
    },
    "suv": {
        "length": (4.4, 4.95), "width": (1.86, 2.02), "height": (1.72, 1.94), "sill": (0.42, 0.54),
        "belt": (1.1, 1.24), "bonnet": (1.0, 1.25), "deck": (0.05, 0.15), "rake_front": (0.35, 0.55),
        "rake_rear": (0.12, 0.3), "wheel": (0.38, 0.44),
    },
    "pickup": {
        "length": (5.2, 5.8), "width": (1.82, 2.0), "height": (1.68, 1.88), "sill": (0.42, 0.54),
        "belt": (1.02, 1.14), "bonnet": (1.05, 1.3), "deck": (1.9, 2.5), "rake_front": (0.45, 0.65),
        "rake_rear": (0.06, 0.16), "wheel": (0.38, 0.43),
    },
    "minibus": {
        "length": (4.7, 5.7), "width": (1.86, 2.06), "height": (1.98, 2.45), "sill": (0.26, 0.38),
        "belt": (1.1, 1.25), "bonnet": (0.3, 0.65), "deck": (0.04, 0.1), "rake_front": (0.4, 0.75),
        "rake_rear": (0.06, 0.18), "wheel": (0.31, 0.36),
    },
}  # fmt: skip

BODIES = (*_RANGES, "truck", "motorcycle")
"""Body types, as they are called in the labels."""

_TYRE: RGB = (34, 34, 36)
_PLASTIC: RGB = (58, 59, 62)
_LAMP: RGB = (255, 250, 226)
_RED_LAMP: RGB = (214, 22, 26)
_AMBER: RGB = (244, 146, 30)
_PLATES: tuple[RGB, ...] = ((240, 240, 236), (240, 240, 236), (246, 210, 66), (60, 96, 190))
_RIMS: tuple[RGB, ...] = ((196, 198, 202), (150, 152, 156), (70, 70, 74), (222, 222, 222))
_GOODS: tuple[RGB, ...] = ((176, 132, 84), (104, 122, 90), (90, 110, 146), (150, 150, 150), (200, 120, 60))


@dataclass(frozen=True)
class Vehicle:
    """One vehicle: the same in all of its photos.

    Attributes
    ----------
    body
        One of `BODIES`.
    color
        A key of `PAINTS`.
    parts
        What is painted.
    headlights, taillights
        Where light comes from at night, shape ``(n, 3)``.
    """

    body: str
    color: str
    parts: tuple[Part, ...]
    headlights: NDArray[np.float64]
    taillights: NDArray[np.float64]

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """All corners, shape ``(n, 3)``."""
        return np.concatenate([part.corners for part in self.parts])


@dataclass(frozen=True)
class _Trim:
    """What a buyer chooses: everything that says nothing about the body type."""

    paint: RGB
    second: RGB
    rim: RGB
    plate: RGB
    glass: RGB
    bumper: RGB
    lamp_width: float
    lamp_height: float
    grille_width: float
    bars: int
    extra: str
    goods: RGB


def build(body: str, color: str, rng: np.random.Generator) -> Vehicle:
    """A new vehicle of this body type and color; `rng` draws its proportions and trim."""
    trim = _trim(color, rng)
    if body == "truck":
        return _truck(color, trim, rng)
    if body == "motorcycle":
        return _motorcycle(color, trim, rng)
    return _car(body, color, trim, rng)


def _trim(color: str, rng: np.random.Generator) -> _Trim:
    paint = _mix(PAINTS[color], tuple(rng.uniform(0, 255, 3)), rng.uniform(0, 0.12))
    tint = float(rng.uniform(0.7, 1.5))
    return _Trim(
        paint=paint,
        second=_mix(paint, (20, 20, 22), 0.8) if rng.random() < 0.5 else (232, 232, 228),
        rim=_pick(_RIMS, rng),
        plate=_pick(_PLATES, rng),
        glass=(46 * tint, 58 * tint, 70 * tint),
        bumper=paint if rng.random() < 0.6 else _PLASTIC,
        lamp_width=rng.uniform(0.13, 0.24),
        lamp_height=rng.uniform(0.4, 0.9),
        grille_width=rng.uniform(0.3, 0.52),
        bars=int(rng.integers(1, 4)),
        extra=str(rng.choice(["none", "none", "rack", "two-tone", "stripe", "sign", "box"])),
        goods=_pick(_GOODS, rng),
    )


def _mix(a: RGB, b: tuple[float, ...], share: float) -> RGB:
    return tuple(float((1 - share) * p + share * q) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def _pick(colors: tuple[RGB, ...], rng: np.random.Generator) -> RGB:
    return colors[int(rng.integers(len(colors)))]


def _rectangle(u: tuple[float, float], v: tuple[float, float]) -> list[tuple[float, float]]:
    return [(u[0], v[0]), (u[1], v[0]), (u[1], v[1]), (u[0], v[1])]


# ---- cars, vans and pickups: a lower body, and a cabin that sits on it


def _car(body: str, color: str, trim: _Trim, rng: np.random.Generator) -> Vehicle:
    size = {name: float(rng.uniform(*limits)) for name, limits in _RANGES[body].items()}
    lower, cabin = _lower_body(size), _cabin(size)
    axles = (size["length"] / 2 - rng.uniform(0.72, 0.9), -size["length"] / 2 + rng.uniform(0.7, 0.95))
    half = size["width"] / 2
    faces = [
        *_tyres(axles, half, size["wheel"]),
        *lower.faces(trim.paint, {0: trim.bumper, 6: trim.bumper, 3: _PLASTIC}),
        *_front(lower, trim),
        *_rear(lower, trim),
        *_bonnet(lower, trim),
        *_wheels(lower, axles, size, trim),
        *_doors(lower, size, trim),
        *(_bed(lower) if body == "pickup" else []),
        *_mirrors(size, trim),
    ]
    panel_van = body == "minibus" and rng.random() < 0.3
    top = [*_cabin_faces(cabin, size, trim, panel_van=panel_van), *_roof_extras(size, trim)]
    parts = [Part(tuple(faces)), Part(tuple(top), 1, (_cabin_middle(size), 0.0, 1.0))]
    if body == "pickup" and rng.random() < 0.35:
        parts.append(_load(size, trim, rng))
    lamps = {1: lower.strip(1, [(0.12, 0.5), (0.88, 0.5)]), 5: lower.strip(5, [(0.1, 0.4), (0.9, 0.4)])}
    return Vehicle(body, color, tuple(parts), lamps[1], lamps[5])


def _lower_body(size: dict[str, float]) -> Prism:
    front, sill, belt = size["length"] / 2, size["sill"], size["belt"]
    cowl, deck = front - size["bonnet"], -front + size["deck"]
    middle = sill + 0.42 * (belt - sill)
    profile = [
        (front - 0.05, sill - 0.04), (front, middle), (front - 0.07, belt - 0.16), (cowl, belt),
        (deck, belt + 0.03), (-front + 0.07, belt - 0.01), (-front, middle), (-front + 0.06, sill),
    ]  # fmt: skip
    half = size["width"] / 2
    return Prism(profile, [half * f for f in (0.93, 0.95, 0.93, 0.99, 0.99, 0.94, 0.96, 0.95)])


def _cabin(size: dict[str, float]) -> Prism:
    front, belt, top = size["length"] / 2, size["belt"], size["height"]
    base, rear = front - size["bonnet"], -front + size["deck"]
    profile = [
        (base, belt - 0.02), (base - size["rake_front"], top - 0.06), (base - size["rake_front"] - 0.4, top),
        (rear + size["rake_rear"] + 0.3, top), (rear + size["rake_rear"], top - 0.06), (rear, belt),
    ]  # fmt: skip
    half = size["width"] / 2
    lean = 0.86 if top > 1.95 else 0.77
    return Prism(profile, [half * f for f in (0.95, lean, lean - 0.02, lean - 0.02, lean, 0.95)])


def _cabin_middle(size: dict[str, float]) -> float:
    return (size["deck"] - size["bonnet"]) / 2


def _front(lower: Prism, trim: _Trim) -> list[Face]:
    """Headlights, grille, bumper opening and number plate."""
    w, h, g = trim.lamp_width, trim.lamp_height, trim.grille_width / 2
    faces = [Face(lower.strip(1, _rectangle((0.5 - g, 0.5 + g), (0.12, 0.85))), (30, 30, 33))]
    for i in range(trim.bars):
        v = 0.25 + 0.5 * i / max(trim.bars - 1, 1)
        faces.append(
            Face(lower.strip(1, _rectangle((0.5 - g, 0.5 + g), (v - 0.05, v + 0.05))), (150, 152, 156))
        )
    for u in ((0.02, 0.02 + w), (0.98 - w, 0.98)):
        lamp = _rectangle(u, (0.92 - h * 0.8, 0.94))
        faces += [Face(lower.strip(1, lamp), _LAMP, shines=True)]
    faces.append(Face(lower.strip(0, _rectangle((0.2, 0.8), (0.1, 0.42))), (32, 32, 34)))
    return [*faces, *_plate(lower, 0, (0.5, 0.95), trim)]


def _rear(lower: Prism, trim: _Trim) -> list[Face]:
    """Tail lights, number plate and the edge of the tailgate."""
    w, h = trim.lamp_width * 0.9, trim.lamp_height
    dark = _mix(trim.paint, (0, 0, 0), 0.35)
    faces = [Face(lower.strip(5, _rectangle((0.04, 0.96), (0.93, 0.99))), dark)]
    for low, high, inner in ((0.02, 0.02 + w, 0.02 + w * 0.7), (0.98 - w, 0.98, 0.98 - w)):
        faces.append(
            Face(lower.strip(5, _rectangle((low, high), (0.12, 0.12 + h * 0.75))), _RED_LAMP, shines=True)
        )
        amber = _rectangle((inner, inner + w * 0.3), (0.16, 0.1 + h * 0.5))
        faces.append(Face(lower.strip(5, amber), _AMBER, shines=True))
    faces.append(Face(lower.strip(6, _rectangle((0.15, 0.85), (0.55, 0.9))), (40, 40, 42)))
    return [*faces, *_plate(lower, 5, (0.45, 0.85), trim)]


def _plate(prism: Prism, strip: int, v: tuple[float, float], trim: _Trim) -> list[Face]:
    line = (v[0] * 0.6 + v[1] * 0.4, v[0] * 0.35 + v[1] * 0.65)
    return [
        Face(prism.strip(strip, _rectangle((0.37, 0.63), v)), trim.plate),
        Face(prism.strip(strip, _rectangle((0.41, 0.59), line)), (52, 52, 60)),
    ]


def _bonnet(lower: Prism, trim: _Trim) -> list[Face]:
    light, dark = _mix(trim.paint, (255, 255, 255), 0.22), _mix(trim.paint, (0, 0, 0), 0.2)
    faces = [
        Face(lower.strip(2, [(0.2, 0.08), (0.8, 0.08), (0.7, 0.95), (0.3, 0.95)]), light),
        Face(lower.strip(2, [(0.26, 0.1), (0.74, 0.1), (0.66, 0.95), (0.34, 0.95)]), trim.paint),
        Face(lower.strip(4, _rectangle((0.08, 0.92), (0.1, 0.14))), dark),
    ]
    if trim.extra == "stripe":
        faces += [
            Face(lower.strip(i, _rectangle(u, (0.0, 1.0))), trim.second)
            for i in (2, 4)
            for u in ((0.38, 0.46), (0.54, 0.62))
        ]
    return faces


def _tyres(axles: tuple[float, float], half: float, radius: float) -> list[Face]:
    faces = []
    for x in axles:
        for sign in (1, -1):
            tyre = Prism(disc(x, radius, radius, 12), 0.11, sign * (half - 0.13))
            faces += tyre.faces(_TYRE)
    return faces


def _wheels(lower: Prism, axles: tuple[float, float], size: dict[str, float], trim: _Trim) -> list[Face]:
    """Wheel arches and rims on the sides of the lower body."""
    radius = size["wheel"]
    faces = []
    for x in axles:
        for sign in (1, -1):
            arch = disc(x, radius + 0.02, radius * 1.2, 16, lowest=size["sill"])
            faces.append(Face(lower.side(sign, arch), (22, 22, 24)))
            faces.append(Face(lower.side(sign, disc(x, radius, radius)), _TYRE))
            faces.append(Face(lower.side(sign, disc(x, radius, radius * 0.66)), trim.rim))
            faces.append(Face(lower.side(sign, disc(x, radius, radius * 0.22, 8)), (60, 60, 64)))
    return faces


def _doors(lower: Prism, size: dict[str, float], trim: _Trim) -> list[Face]:
    """Door gaps, handles, and a sill of black plastic."""
    front, sill, belt = size["length"] / 2, size["sill"], size["belt"]
    dark = _mix(trim.paint, (0, 0, 0), 0.45)
    base, rear = front - size["bonnet"] - 0.15, -front + max(size["deck"], 0.9) + 0.1
    middle = (base + rear) / 2
    gaps = [_xz((x - 0.015, x + 0.015), (sill + 0.1, belt)) for x in (base, middle, rear)]
    handles = [_xz((x + 0.14, x + 0.34), (belt - 0.2, belt - 0.14)) for x in (middle, rear)]
    band = _xz((-front + 0.2, front - 0.2), (belt - 0.34, belt - 0.26))
    marks = [(_xz((rear, base), (sill, sill + 0.09)), _PLASTIC), *((mark, dark) for mark in gaps + handles)]
    if trim.extra == "stripe":
        marks.append((band, trim.second))
    return [Face(lower.side(sign, mark), color) for sign in (1, -1) for mark, color in marks]


def _xz(x: tuple[float, float], z: tuple[float, float]) -> list[tuple[float, float]]:
    """A rectangle on a side, running as profiles do."""
    return [(x[1], z[0]), (x[1], z[1]), (x[0], z[1]), (x[0], z[0])]


def _bed(lower: Prism) -> list[Face]:
    return [
        Face(lower.strip(4, _rectangle((0.06, 0.94), (0.02, 0.96))), (44, 44, 47)),
        Face(lower.strip(4, _rectangle((0.12, 0.88), (0.1, 0.9))), (62, 62, 66)),
    ]


def _mirrors(size: dict[str, float], trim: _Trim) -> list[Face]:
    x, z, half = size["length"] / 2 - size["bonnet"] - 0.25, size["belt"] + 0.03, size["width"] / 2
    return [
        face
        for sign in (1, -1)
        for face in box((x - 0.08, x + 0.08), 0.1, (z, z + 0.16), sign * (half + 0.07)).faces(trim.paint)
    ]


def _cabin_faces(cabin: Prism, size: dict[str, float], trim: _Trim, *, panel_van: bool) -> list[Face]:
    roof = trim.second if trim.extra == "two-tone" else trim.paint
    faces = cabin.faces(trim.paint, dict.fromkeys((1, 2, 3), roof))
    shine = _mix(trim.glass, (200, 220, 236), 0.5)
    faces += [
        Face(cabin.strip(0, _rectangle((0.05, 0.95), (0.06, 0.93))), trim.glass),
        Face(cabin.strip(0, [(0.56, 0.06), (0.72, 0.06), (0.9, 0.93), (0.74, 0.93)]), shine),
        Face(cabin.strip(0, [(0.78, 0.06), (0.82, 0.06), (0.95, 0.7), (0.95, 0.93)]), shine),
        Face(cabin.strip(0, _rectangle((0.2, 0.36), (0.06, 0.2))), _mix(trim.glass, (0, 0, 0), 0.5)),
    ]
    if not (panel_van and trim.bars == 1):
        back = [(0.1, 0.12), (0.9, 0.12), (0.93, 0.86), (0.07, 0.86)]
        faces += [
            Face(cabin.strip(4, back), trim.glass),
            Face(cabin.strip(4, [(0.2, 0.12), (0.34, 0.12), (0.24, 0.86), (0.1, 0.86)]), shine),
        ]
    return [*faces, *_side_windows(cabin, size, trim, panel_van=panel_van)]


def _side_windows(cabin: Prism, size: dict[str, float], trim: _Trim, *, panel_van: bool) -> list[Face]:
    front, low, high = size["length"] / 2, size["belt"] + 0.05, size["height"] - 0.13
    share = (high - size["belt"]) / (size["height"] - size["belt"])
    base, rear = front - size["bonnet"] - 0.16, -front + size["deck"] + 0.14
    top = base - size["rake_front"] * share, rear + size["rake_rear"] * share
    if panel_van:
        rear = base - 1.35
        top = (top[0], rear)
    outline = [(base, low), (top[0], high), (top[1], high), (rear, low)]
    n_pillars = 1 if base - rear < 2.2 else 2 if base - rear < 3.2 else 3
    faces = []
    for sign in (1, -1):
        faces.append(Face(cabin.side(sign, outline), trim.glass))
        for i in range(0 if panel_van else n_pillars):
            x = base + (rear - base) * (i + 1.1) / (n_pillars + 1)
            faces.append(Face(cabin.side(sign, _xz((x - 0.045, x + 0.045), (low, high))), trim.paint))
    return faces


def _roof_extras(size: dict[str, float], trim: _Trim) -> list[Face]:
    """A rack, a roof box or a lit sign."""
    front, top = size["length"] / 2, size["height"]
    head = front - size["bonnet"] - size["rake_front"] - 0.15
    tail = -front + size["deck"] + size["rake_rear"] + 0.15
    middle = (head + tail) / 2
    if trim.extra == "rack":
        y = size["width"] * 0.33
        rails = [box((tail, head), 0.03, (top, top + 0.1), s * y) for s in (1, -1)]
        bars = [box((x - 0.03, x + 0.03), y, (top + 0.05, top + 0.1)) for x in (head - 0.2, tail + 0.2)]
        return [face for prism in (*rails, *bars) for face in prism.faces((74, 76, 80))]
    if trim.extra == "box":
        return box((tail, middle + 0.3), 0.38, (top, top + 0.28), 0.15).faces((70, 72, 78))
    if trim.extra == "sign":
        return box((middle - 0.12, middle + 0.12), 0.36, (top, top + 0.2)).faces((250, 222, 120))
    return []


def _load(size: dict[str, float], trim: _Trim, rng: np.random.Generator) -> Part:
    """Goods on a pickup's bed."""
    rear, belt = -size["length"] / 2, size["belt"]
    x = (rear + 0.25, rear + size["deck"] - rng.uniform(0.15, 0.6))
    goods = box(x, size["width"] * rng.uniform(0.25, 0.4), (belt - 0.1, belt + rng.uniform(0.15, 0.6)))
    faces = goods.faces(trim.goods)
    lid = goods.strip(1, _rectangle((0.46, 0.54), (0.0, 1.0)))
    return Part((*faces, Face(lid, _mix(trim.goods, (0, 0, 0), 0.4))), 1, (sum(x) / 2, 0.0, 1.0))


# ---- trucks: a chassis, a cab, and what it carries


def _truck(color: str, trim: _Trim, rng: np.random.Generator) -> Vehicle:
    length, half, cab_length = rng.uniform(5.6, 7.4), rng.uniform(1.0, 1.2), rng.uniform(1.5, 1.9)
    front, top, wheel = length / 2, rng.uniform(2.2, 2.8), rng.uniform(0.42, 0.5)
    axles = (front - 0.9, -front + 1.2)
    chassis = box((-front, front - 0.3), half * 0.8, (0.45, 0.75))
    base = [*_tyres(axles, half, wheel), *chassis.faces((54, 54, 57))]
    base += [f for x in (-front + 2.05,) for f in _tyres((x, x), half, wheel)] if length > 6.6 else []
    cab, cab_faces = _cab(front, front - cab_length, half * 0.95, top, wheel, axles[0], trim)
    tail = box((-front, -front + 0.1), half * 0.95, (0.5, 0.78))
    cargo_faces = [*tail.faces(_PLASTIC), *_truck_lamps(tail, trim)]
    cargo_faces += _cargo(-front, front - cab_length - 0.12, half, top, trim, rng)
    for x in (axles[1], -front + 2.05) if length > 6.6 else axles[1:]:
        for sign in (1, -1):
            hub = Prism(disc(x, wheel, wheel * 0.6), half - 0.02)
            cargo_faces.append(Face(hub.side(sign), trim.rim))
    parts = (
        Part(tuple(base)),
        Part(tuple(cab_faces), 1, (front - cab_length / 2, 0.0, 1.5)),
        Part(tuple(cargo_faces), 1, ((-cab_length) / 2, 0.0, 1.5)),
    )
    heads, tails = cab.strip(0, [(0.12, 0.5), (0.88, 0.5)]), tail.strip(2, [(0.1, 0.5), (0.9, 0.5)])
    return Vehicle("truck", color, parts, heads, tails)


def _cab(
    front: float, back: float, half: float, top: float, wheel: float, axle: float, trim: _Trim
) -> tuple[Prism, list[Face]]:
    profile = [
        (front - 0.04, 0.45), (front, 0.95), (front - 0.02, 1.35), (front - 0.28, top - 0.08),
        (front - 0.5, top), (back, top), (back, 0.55),
    ]  # fmt: skip
    cab = Prism(profile, [half * f for f in (0.97, 1, 1, 0.92, 0.9, 0.92, 1)])
    g = trim.grille_width / 2 + 0.05
    shine = _mix(trim.glass, (200, 220, 236), 0.5)
    roof = trim.second if trim.extra == "two-tone" else trim.paint
    faces = cab.faces(trim.paint, {0: trim.bumper, 4: roof, 3: roof})
    faces += [
        Face(cab.strip(2, _rectangle((0.05, 0.95), (0.05, 0.92))), trim.glass),
        Face(cab.strip(2, [(0.56, 0.05), (0.7, 0.05), (0.86, 0.92), (0.72, 0.92)]), shine),
        Face(cab.strip(1, _rectangle((0.5 - g, 0.5 + g), (0.15, 0.85))), (34, 34, 37)),
    ]
    faces += [
        Face(cab.strip(1, _rectangle((0.5 - g, 0.5 + g), (v, v + 0.1))), (150, 152, 156)) for v in (0.3, 0.6)
    ]
    w = trim.lamp_width
    for u in ((0.04, 0.04 + w), (0.96 - w, 0.96)):
        faces.append(Face(cab.strip(0, _rectangle(u, (0.5, 0.88))), _LAMP, shines=True))
    faces += _plate(cab, 0, (0.15, 0.45), trim)
    for sign in (1, -1):
        window = [
            (front - 0.12, 1.45),
            (front - 0.34, top - 0.3),
            (back + 0.35, top - 0.3),
            (back + 0.35, 1.45),
        ]
        faces += [
            Face(cab.side(sign, window), trim.glass),
            Face(cab.side(sign, disc(axle, wheel, wheel * 1.15, 16, lowest=0.5)), (22, 22, 24)),
            Face(cab.side(sign, disc(axle, wheel, wheel)), _TYRE),
            Face(cab.side(sign, disc(axle, wheel, wheel * 0.6)), trim.rim),
        ]
        mirror = box((front - 0.16, front - 0.06), 0.09, (1.45, 1.95), sign * (half + 0.14))
        faces += mirror.faces(_PLASTIC)
    return cab, faces


def _cargo(
    rear: float, front: float, half: float, cab_top: float, trim: _Trim, rng: np.random.Generator
) -> list[Face]:
    """A box body, a dropside with goods, or a tipper."""
    kind = str(rng.choice(["box", "box", "box", "dropside", "tipper"]))
    if kind == "box":
        return _box_body(
            box((rear, front), half, (0.78, cab_top + rng.uniform(-0.1, 0.6))), rear, front, trim, rng
        )
    wall = rng.uniform(1.3, 1.5) if kind == "dropside" else rng.uniform(1.6, 2.0)
    color = trim.paint if kind == "tipper" else _mix(trim.goods, (120, 120, 120), 0.4)
    bed = box((rear, front), half, (0.78, wall))
    faces = [*bed.faces(color), Face(bed.strip(1, _rectangle((0.04, 0.96), (0.02, 0.98))), (70, 64, 58))]
    for x in np.linspace(rear, front, 6)[1:-1]:
        for sign in (1, -1):
            rib = _xz((x - 0.04, x + 0.04), (0.82, wall))
            faces.append(Face(bed.side(sign, rib), _mix(color, (0, 0, 0), 0.3)))
    goods = box((rear + 0.4, front - 0.4), half * 0.75, (wall - 0.1, wall + rng.uniform(0.2, 0.7)))
    return [*faces, *goods.faces(trim.goods)]


def _box_body(body: Prism, rear: float, front: float, trim: _Trim, rng: np.random.Generator) -> list[Face]:
    color = trim.paint if rng.random() < 0.45 else (226, 226, 222)
    dark = _mix(color, (0, 0, 0), 0.3)
    logo = trim.goods if color == trim.paint else trim.paint
    faces = body.faces(color)
    faces += [
        Face(body.strip(2, _rectangle((0.485, 0.515), (0.02, 0.98))), dark),
        Face(body.strip(2, _rectangle((0.03, 0.97), (0.95, 0.98))), dark),
        Face(body.strip(2, _rectangle((0.15, 0.42), (0.25, 0.5))), logo),
    ]
    x = (rear + 0.25 * (front - rear), rear + 0.8 * (front - rear))
    for sign in (1, -1):
        faces.append(Face(body.side(sign, _xz((rear, front), (0.78, 0.86))), dark))
        faces.append(Face(body.side(sign, _xz(x, (1.5, 1.5 + rng.uniform(0.2, 0.5)))), logo))
    return faces


def _truck_lamps(tail: Prism, trim: _Trim) -> list[Face]:
    faces = _plate(tail, 2, (0.25, 0.8), trim)
    for low, high in ((0.03, 0.16), (0.84, 0.97)):
        faces.append(Face(tail.strip(2, _rectangle((low, high), (0.15, 0.85))), _RED_LAMP, shines=True))
    return faces


# ---- motorcycles: two wheels, a frame, and somebody on it


def _motorcycle(color: str, trim: _Trim, rng: np.random.Generator) -> Vehicle:
    base, wheel = rng.uniform(0.62, 0.75), rng.uniform(0.28, 0.33)
    seat = rng.uniform(0.74, 0.86)
    nose = [(base - 0.1, 0.62), (base - 0.02, 0.8), (base - 0.2, 1.05), (base - 0.42, 1.0), (base - 0.4, 0.6)]
    tank = [(base - 0.35, 0.6), (base - 0.35, 0.98), (0.0, seat + 0.06), (-0.15, 0.55)]
    saddle = [(0.1, seat - 0.12), (0.1, seat), (-base + 0.05, seat + 0.06), (-base - 0.05, seat - 0.06)]
    tail = [(-0.1, 0.5), (-0.1, seat - 0.08), (-base - 0.1, seat), (-base - 0.08, seat - 0.2)]
    fairing = Prism(nose, 0.19)
    rear = Prism(tail, [0.12, 0.14, 0.11, 0.11])
    engine = box((-0.3, 0.3), 0.15, (0.22, 0.6))
    low = [
        *_two_wheels(base, wheel, trim),
        *engine.faces((84, 86, 90)),
        *Prism(tank, 0.15).faces(trim.paint),
        *Prism(saddle, 0.12).faces((36, 34, 34)),
        *rear.faces(trim.paint),
        Face(rear.strip(2, _rectangle((0.1, 0.9), (0.05, 0.5))), _RED_LAMP, shines=True),
        *_plate_box(-base - 0.12, trim),
    ]
    head = [
        *fairing.faces(trim.paint, {1: trim.glass}),
        Face(fairing.strip(0, _rectangle((0.15, 0.85), (0.1, 0.9))), _LAMP, shines=True),
        *box((base - 0.42, base - 0.36), 0.36, (0.98, 1.03)).faces(_PLASTIC),
        *[
            f
            for s in (1, -1)
            for f in box((base - 0.4, base - 0.34), 0.07, (1.1, 1.2), s * 0.33).faces(_PLASTIC)
        ],
    ]
    parts = (
        Part(tuple(low)),
        Part(tuple(_rider(base, seat, trim, rng)), 1, (0.0, 0.0, 1.0)),
        Part(tuple(head), 1, (base, 0.0, 1.0)),
    )
    return Vehicle("motorcycle", color, parts, fairing.strip(0, [(0.5, 0.5)]), rear.strip(2, [(0.5, 0.3)]))


def _two_wheels(base: float, radius: float, trim: _Trim) -> list[Face]:
    faces = []
    for x in (base, -base):
        tyre = Prism(disc(x, radius, radius), 0.08)
        faces += tyre.faces(_TYRE)
        for sign in (1, -1):
            faces.append(Face(tyre.side(sign, disc(x, radius, radius * 0.7)), trim.rim))
            faces.append(Face(tyre.side(sign, disc(x, radius, radius * 0.5)), (70, 72, 76)))
    for y in (0.1, -0.1):
        fork = [(base + 0.04, radius), (base - 0.28, 0.95), (base - 0.34, 0.95), (base - 0.04, radius)]
        faces += Prism(fork, 0.025, y).faces((150, 152, 156))
    return faces


def _plate_box(x: float, trim: _Trim) -> list[Face]:
    plate = box((x - 0.02, x), 0.11, (0.42, 0.58))
    return [*plate.faces(trim.plate), Face(plate.strip(2, _rectangle((0.2, 0.8), (0.4, 0.6))), (52, 52, 60))]


def _rider(base: float, seat: float, trim: _Trim, rng: np.random.Generator) -> list[Face]:
    """Legs, jacket, arms and a helmet."""
    jacket, trousers = _pick((*_GOODS, (48, 50, 58), (52, 54, 62), (150, 40, 40)), rng), (50, 56, 74)
    lean = rng.uniform(0.02, 0.22)
    top = seat + 0.55
    faces = []
    for y in (0.2, -0.2):
        leg = [(0.24, 0.3), (0.36, seat - 0.02), (-0.16, seat + 0.1), (-0.18, seat - 0.06), (0.1, 0.3)]
        faces += Prism(leg, 0.07, y).faces(trousers)
    torso = [(0.06, seat), (lean + 0.12, top), (lean - 0.12, top), (-0.24, seat + 0.02)]
    for y in (0.27, -0.27):
        arm = [(base - 0.34, 1.0), (lean + 0.08, top), (lean - 0.06, top - 0.06), (0.12, seat + 0.2)]
        faces += Prism(arm, 0.06, y).faces(_mix(jacket, (0, 0, 0), 0.15))
    faces += Prism(torso, [0.17, 0.25, 0.25, 0.18]).faces(jacket)
    helmet = Prism(disc(lean + 0.03, top + 0.15, 0.17, 10), 0.15)
    faces += helmet.faces(trim.second, dict.fromkeys((2, 3), (30, 34, 40)))
    return faces
