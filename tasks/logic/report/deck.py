"""The look of the slides: one calm theme, and text and tables as native objects that stay editable in PowerPoint and LibreOffice.

Nothing is measured by a renderer, so texts are fitted by a careful estimate of their width, and what does not fit on one slide goes on to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pptx import Presentation
from pptx.dml.color import RGBColor
from pptx.enum.shapes import MSO_SHAPE
from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
from pptx.oxml.ns import qn
from pptx.oxml.xmlchemy import OxmlElement
from pptx.util import Inches, Pt

WIDTH, HEIGHT = 13.333, 7.5  # inches, 16:9
MARGIN, TOP, BOTTOM = 0.6, 1.55, 6.85
INNER = WIDTH - 2 * MARGIN
SMALL, TEXT, LEAD, TITLE = 14, 18, 20, 28  # points; nothing is smaller than SMALL
EM = 0.53  # mean width of a character of Calibri in ems, on the safe side
LINE = 1.22  # line height in font sizes
INK, MUTED, RULE, PANEL, WHITE = "1F2933", "52606D", "CBD2D9", "F2F5F7", "FFFFFF"
ACCENT = "0F766E"
TONES = {"pass": "2E7D32", "fail": "B3261E", "underpowered": "8A5A00"}

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Box:
    """A place on a slide, in inches."""

    left: float = MARGIN
    top: float = TOP
    width: float = INNER
    height: float = BOTTOM - TOP

    def emu(self) -> tuple[int, int, int, int]:
        """As the drawing library wants it."""
        return tuple(int(Inches(value)) for value in (self.left, self.top, self.width, self.height))  # type: ignore[return-value]


def new_deck() -> Any:
    """An empty 16:9 presentation."""
    deck = Presentation()
    deck.slide_width, deck.slide_height = Inches(WIDTH), Inches(HEIGHT)
    return deck


def new_slide(deck: Any, title: str, *, foot: str) -> Any:
    """A slide with its title, a rule under it, and a foot with the slide's number."""
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    place = slide.shapes.title
    place.left, place.top, place.width, place.height = Box(top=0.35, height=1.0).emu()
    place.text_frame.margin_left = place.text_frame.margin_right = 0
    size = next((size for size in (TITLE, 24, LEAD) if lines_of(title, width=INNER, size=size) <= 2), LEAD)
    write(place, [title], size=size, bold=True, anchor=MSO_ANCHOR.MIDDLE)
    rule = slide.shapes.add_shape(MSO_SHAPE.RECTANGLE, *Box(top=1.38, width=1.2, height=0.05).emu())
    paint(rule, ACCENT)
    add_text(slide, Box(top=6.98, height=0.34), [f"{foot}  ·  {len(deck.slides)}"], size=SMALL, color=MUTED)
    return slide


def add_text(slide: Any, box: Box, lines: Sequence[str], *, size: int = TEXT, color: str = INK, bold: bool = False, bullets: bool = False) -> None:
    """Paragraphs in a box."""
    shape = slide.shapes.add_textbox(*box.emu())
    shape.text_frame.margin_left = shape.text_frame.margin_right = 0  # so that text, tables and charts begin on one line
    write(shape, lines, size=size, color=color, bold=bold, bullets=bullets)


def add_chip(slide: Any, box: Box, text: str, tone: str) -> None:
    """A verdict in its colour; the word itself carries the meaning."""
    chip = slide.shapes.add_shape(MSO_SHAPE.ROUNDED_RECTANGLE, *box.emu())
    paint(chip, TONES[tone])
    write(chip, [text], size=TEXT, color=WHITE, bold=True, anchor=MSO_ANCHOR.MIDDLE, align=PP_ALIGN.CENTER)


def add_table(slide: Any, box: Box, header: Sequence[str], rows: Sequence[Sequence[str]], *, shares: Sequence[float]) -> None:
    """A table whose columns take `shares` of the width; a cell that is a verdict has its colour."""
    widths = [box.width * share / sum(shares) for share in shares]
    heights = [row_height(row, widths) for row in [header, *rows]]
    frame = slide.shapes.add_table(len(rows) + 1, len(header), *Box(left=box.left, top=box.top, width=box.width, height=sum(heights)).emu())
    table = frame.table
    for column, width in zip(table.columns, widths, strict=True):
        column.width = Inches(width)
    for number, (row, height) in enumerate(zip([header, *rows], heights, strict=True)):
        table.rows[number].height = Inches(height)
        for place, text in enumerate(row):
            cell = table.cell(number, place)
            cell.margin_top = cell.margin_bottom = Inches(0.04)
            cell.margin_left = cell.margin_right = Inches(0.08)
            cell.fill.solid()
            cell.fill.fore_color.rgb = rgb(ACCENT if not number else PANEL if number % 2 else WHITE)
            color = WHITE if not number else TONES.get(text, INK)
            write(cell, [text], size=SMALL, color=color, bold=not number or text in TONES, anchor=MSO_ANCHOR.MIDDLE)


def paged_table(deck: Any, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, shares: Sequence[float], foot: str) -> None:
    """A table over as many slides as it takes; none where there are no rows."""
    widths = [INNER * share / sum(shares) for share in shares]
    room = BOTTOM - TOP - row_height(header, widths)
    for page in pages(rows, [row_height(row, widths) for row in rows], room=room):
        add_table(new_slide(deck, title, foot=foot), Box(), header, page, shares=shares)


def paged_bullets(deck: Any, title: str, lines: Sequence[str], *, foot: str) -> None:
    """Bullets over as many slides as they take, a little smaller where they then fit on one."""
    size = next((size for size in (TEXT, 16) if sum(text_height(line, size=size) for line in lines) <= BOTTOM - TOP), TEXT)
    for page in pages(lines, [text_height(line, size=size) for line in lines]):
        add_text(new_slide(deck, title, foot=foot), Box(), page, size=size, bullets=True)


def lines_of(text: str, *, width: float, size: float) -> int:
    """Lines that a text takes in a box of `width` inches, words kept whole; estimated."""
    room = max(1, int((width - 0.2) * 72 / (size * EM)))
    count, filled = 1, 0
    for word in text.split() or ["-"]:
        longer = filled + bool(filled) + len(word)
        if longer > room and filled:
            count, longer = count + 1, len(word)
        count, filled = count + (longer - 1) // room, (longer - 1) % room + 1
    return count


def pages(items: Sequence[T], heights: Sequence[float], *, room: float = BOTTOM - TOP) -> Iterator[list[T]]:
    """Items in order on as few pages of `room` inches as hold them; one that is higher than a page has one for itself."""
    page: list[T] = []
    used = 0.0
    for item, height in zip(items, heights, strict=True):
        if page and used + height > room:
            yield page
            page, used = [], 0.0
        page.append(item)
        used += height
    if page:
        yield page


def text_height(text: str, *, width: float = INNER, size: float = TEXT) -> float:
    """Inches that a paragraph takes, with the space after it."""
    return (lines_of(text, width=width - 0.3, size=size) * LINE + 0.5) * size / 72


def row_height(row: Sequence[str], widths: Sequence[float]) -> float:
    """Inches that a table row takes."""
    return max(lines_of(text, width=width, size=SMALL) for text, width in zip(row, widths, strict=True)) * SMALL * LINE / 72 + 0.1


def write(
    shape: Any, lines: Sequence[str], *, size: int, color: str = INK, bold: bool = False, bullets: bool = False, anchor: Any = None, align: Any = None
) -> None:
    """Fill the text frame of a shape or a cell; every run has its own size, so that no layout makes it smaller."""
    frame = shape.text_frame
    frame.word_wrap = True
    if anchor is not None:
        frame.vertical_anchor = anchor
    for number, line in enumerate(lines):
        paragraph = frame.paragraphs[0] if not number else frame.add_paragraph()
        paragraph.alignment = align or PP_ALIGN.LEFT
        paragraph.space_after = Pt(size * 0.5) if len(lines) > 1 else Pt(0)
        if bullets:
            _bullet(paragraph)
        run = paragraph.add_run()
        run.text = "".join(char for char in line if char.isprintable()).replace(" %", "\u00a0%")  # a figure keeps its sign
        run.font.size, run.font.bold = Pt(size), bold
        run.font.color.rgb = rgb(color)


def rgb(color: str) -> RGBColor:
    """A colour from its six hexadecimal digits."""
    red, green, blue = bytes.fromhex(color)
    return RGBColor(red, green, blue)


def paint(shape: Any, color: str) -> None:
    """A shape in one colour, without an edge."""
    shape.fill.solid()
    shape.fill.fore_color.rgb = rgb(color)
    shape.line.fill.background()
    shape._element.remove(shape._element.find(qn("p:style")))  # its shadow


def _bullet(paragraph: Any) -> None:
    properties = paragraph._p.get_or_add_pPr()
    properties.set("marL", str(int(Inches(0.25))))
    properties.set("indent", str(-int(Inches(0.25))))
    bullet = OxmlElement("a:buChar")
    bullet.set("char", "•")
    properties.append(bullet)
