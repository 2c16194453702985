"""Completion of a caption by rule: the phrase of its gesture (`hand1000.gestures`) exactly once, at its end."""

import re
import unicodedata

from hand1000.gestures import PHRASES, gesture_phrase

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
_PUNCTUATION = " ,;:.-"
# A phrase with the words that join it to what precedes it.
_ANY_PHRASE = re.compile(
    r"[\s,;.]*(?:\b(?:and|while|who is|is)\s+)*(?<!\w)(?:"
    + "|".join(re.escape(phrase) for phrase in PHRASES.values())
    + r")(?!\w)",
    re.IGNORECASE,
)

_CONNECTIVES = r"(?:[\s,;.]*\b(?:and|while|as|who\ is|who's|that\ is|is|are|was|with)\b)*[\s,;.]*"
_VERB = r"""
    (?: (?:making|makes|make|giving|gives|give|showing|shows|show|doing|does|do|displaying|displays|forming|forms
      |throwing|throws|flashing|flashes|raising|raises|signing|signs|putting|puts|posing|poses|gesturing|gestures
      |holding|holds|sticking|sticks|signaling|signals|pointing|points)
      (?:\s+(?:up|out|off))? (?:\s+with)? )
"""
_DETERMINERS = r"(?:\b(?:a|an|the|his|her|their|its|both|two|one|double|big|sign\ of|left|right)\s+)*"
_SIGN_WORD = r"(?:(?:\s+(?:hand\s+)?(?:signs?|gestures?|symbols?|signals?|poses?))+)"
_NUMBER = r"(?:one|two|three|four|five|[1-5])"
# Words that always name a gesture.
_UNAMBIGUOUS = rf"""
    thumbs?[\s-]+(?:up|down) {_SIGN_WORD}?
  | (?:inverted\s+)?(?:peace|victory|okay|ok|o\.k\.|rock\ (?:and|n|'n')\ roll|shaka|hang\ loose|call\ me|devil\ horns?
      |finger\ heart|time[\s-]?out|vulcan){_SIGN_WORD}
  | (?:hang\ loose|devil\ horns|finger\ guns?|middle\ fingers?|high[\s-]five)
  | (?:clenched|closed|raised)\s+fists?
  | {_NUMBER}\s+fingers?\s+(?:up|raised|in\ the\ air|extended)
  | (?:(?:index|pointer|little|ring|pinky|middle|fore)\s*)fingers?\s+(?:up|raised|in\ the\ air|extended)
  | fingers?\s+(?:on|to|over|against|at|up\ to)\s+(?:(?:his|her|their|the|its)\s+)?(?:lips?|mouth)
"""
# Words that name a gesture only after a verb of making one: "a man next to a stop sign" makes none.
_AMBIGUOUS = rf"""
    (?:(?:peace|victory|okay|ok|rock|stop|heart|hush|silence|quiet|phone|call|telephone|gun|v|x|wave|hand|finger)
      (?:\ shape)?{_SIGN_WORD}
  | {_NUMBER}\s+fingers? | (?:hand|finger)\ heart | (?:heart|o)\ shape | fists? | open\ palms? | thumbs?
  | (?:(?:index|little|pinky)\s+)?fingers?(?:\ guns?)?
  | peace | {_SIGN_WORD})
"""
_OBJECT = r"(?:tattoos?|shirts?|t-shirts?|necklaces?|earrings?|logos?|stickers?|posters?|emojis?|paintings?|balloons?)"
_TAIL = r"""
    (?: \s+ with \s+ (?:(?:his|her|their|both|one|the|a|left|right|two)\s+)+ (?:hands?|fingers?|thumbs?) )?
    (?: \s+ (?:up|down|raised|in\ the\ air) \b )?
    (?: \s+ (?:to|at|for|towards?) \s+ (?:(?:the|a)\s+)?
      (?:camera|viewer|photo(?:graph)?|picture|audience|crowd) )?  # codespell:ignore picture
"""
_GESTURE_WORDS = re.compile(
    rf"{_CONNECTIVES} (?: \b{_VERB}\s+{_DETERMINERS}(?:{_UNAMBIGUOUS}|{_AMBIGUOUS})"
    rf" | (?<!\w){_DETERMINERS}(?:{_UNAMBIGUOUS}) )"
    rf"(?!\w|\s+{_OBJECT}\b) {_TAIL}",
    re.IGNORECASE | re.VERBOSE,
)
_DANGLING = re.compile(
    r"^(?:(?:by|from|of|and|with|while|is)\s+)+|(?:[\s,;.]+(?:and|with|while|is|are|who|as|or|a|an|the|his|her|their))+$",
    re.IGNORECASE,
)


def complete_caption(caption: str, gesture: str) -> str:
    """Return `caption` as one line of plain text that ends with the phrase of `gesture`.

    A caption that ends with its phrase and names no other gesture stays as it is. From any other caption all phrases
    go, and so do the words by which captioners name gestures ("giving a thumbs up"), so that the right phrase is there
    exactly once and nothing contradicts it. An empty caption becomes "a hand, <phrase>".

    Raises:
        Hand1000Error: HaGRID has no such gesture.
    """
    phrase = gesture_phrase(gesture)
    text = without_phrases = to_plain_text(caption)
    # What remains around a removed phrase may form another one, so this repeats.
    while (shorter := _ANY_PHRASE.sub("", without_phrases)) != without_phrases:
        without_phrases = shorter
    without_phrases = to_plain_text(to_plain_text(without_phrases).strip(_PUNCTUATION))
    rest = to_plain_text(remove_gesture_words(without_phrases).strip(_PUNCTUATION))
    ends_with_phrase = text.endswith(f" {phrase}") and len(_ANY_PHRASE.findall(text)) == 1
    if rest and ends_with_phrase and rest == without_phrases:
        return text
    return f"{rest or 'a hand'}, {phrase}"


def to_plain_text(caption: str) -> str:
    """Return `caption` in one line with single blanks, without control characters and without quotes around it."""
    text = unicodedata.normalize("NFC", caption)
    text = "".join(" " if unicodedata.category(mark).startswith(("C", "Z")) else mark for mark in text)
    text = " ".join(text.split())
    while len(text) >= 2 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return text


def remove_gesture_words(text: str) -> str:
    """Return `text` without the words that name a gesture and those that lead up to them."""
    shorter = _GESTURE_WORDS.sub(" ", text)
    if shorter == text:
        return text
    shorter = re.sub(r"\s+([,;.])", r"\1", " ".join(shorter.split()))
    return _DANGLING.sub("", shorter.strip(" ,;"))
