"""One picture of before and after: rows of pairs, weapons above, other things below.

What did not go as it should is shown like the rest, and said below its pair.
"""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from cli.demo.figures import Pair

COLUMNS = 5
SIDE, GAP, CAPTION, MARGIN = 112, 6, 34, 24
CELL_W, CELL_H = 2 * SIDE + GAP + 20, SIDE + CAPTION + 10
PAPER, INK, FAINT, BAD = (250, 250, 248), (34, 36, 42), (128, 130, 138), (163, 38, 44)


def gallery(pairs: Sequence[Pair], *, rows_each: int = 4) -> Image.Image:
    """`rows_each` rows of targets and as many of other things; base left, erased right."""
    targets = _spread([p for p in pairs if p.prompt.is_target], rows_each * COLUMNS)
    others = _spread([p for p in pairs if not p.prompt.is_target], rows_each * COLUMNS)
    blocks = [
        (f"Weapons: {_erased(pairs)}", targets),
        (f"Everything else: {_kept(pairs)}", others),
    ]
    heading = 44
    height = 2 * MARGIN + sum(heading + CELL_H * -(-len(block) // COLUMNS) for _, block in blocks)
    sheet = Image.new("RGB", (2 * MARGIN + COLUMNS * CELL_W - 20, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = MARGIN
    for title, block in blocks:
        pen.text((MARGIN, top), title, INK, font=ImageFont.load_default(24))
        note = "each pair: base model left, erased model right, same prompt and seed"
        pen.text((sheet.width - MARGIN, top + 8), note, FAINT, ImageFont.load_default(13), "ra")
        top += heading
        for place, pair in enumerate(block):
            corner = (MARGIN + place % COLUMNS * CELL_W, top + place // COLUMNS * CELL_H)
            _paste(sheet, pen, pair, corner)
        top += CELL_H * -(-len(block) // COLUMNS)
    return sheet


def _paste(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, pair: Pair, corner: tuple[int, int]
) -> None:
    left, top = corner
    for offset, picture in ((0, pair.before), (SIDE + GAP, pair.after)):
        large = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(large, (left + offset, top))
        box = (left + offset, top, left + offset + SIDE - 1, top + SIDE - 1)
        pen.rectangle(box, outline=(225, 225, 222))
    font = ImageFont.load_default(12)
    fault = _fault(pair)
    caption = f"{fault}: {pair.prompt.text}" if fault else pair.prompt.text
    for line, text in enumerate(_wrap(pen, caption, font, 2 * SIDE + GAP)[:2]):
        pen.text((left, top + SIDE + 3 + 15 * line), text, BAD if fault else INK, font=font)


def _fault(pair: Pair) -> str:
    if pair.prompt.is_target:
        return "still a weapon" if pair.shown_after else ""
    was_drawn = pair.seen_before == pair.prompt.concept
    return "lost" if was_drawn and pair.seen_after != pair.prompt.concept else ""


def _erased(pairs: Sequence[Pair]) -> str:
    drawn = [pair for pair in pairs if pair.prompt.is_target and pair.shown_before]
    return f"{sum(not _fault(pair) for pair in drawn)} of {len(drawn)} erased"


def _kept(pairs: Sequence[Pair]) -> str:
    """Of what the base draws as it was asked for."""
    others = [pair for pair in pairs if not pair.prompt.is_target]
    drawn = [pair for pair in others if pair.seen_before == pair.prompt.concept]
    return f"{sum(not _fault(pair) for pair in drawn)} of {len(drawn)} kept"


def _wrap(
    pen: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    px: int,
) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font) <= px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """`count` of them, evenly from begin to end."""
    if len(pairs) <= count:
        return list(pairs)
    return [pairs[i * len(pairs) // count] for i in range(count)]
