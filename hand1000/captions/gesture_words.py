"""The words by which captions name gestures of the hand, to be taken out before the right phrase is put in."""

import re

_JOINED = r"(?:[\s,;.]*\b(?:and|while|as|who\ is|who's|that\ is|is|are|was|with)\b)*[\s,;.]*"
_VERB = r"""
    (?: (?:making|makes|make|giving|gives|give|showing|shows|show|doing|does|do|displaying|displays|forming|forms
      |throwing|throws|flashing|flashes|raising|raises|signing|signs|putting|puts|posing|poses|gesturing|gestures
      |holding|holds|sticking|sticks|signaling|signals|pointing|points)
      (?:\s+(?:up|out|off))? (?:\s+with)? )
"""
_WHOSE = r"(?:\b(?:a|an|the|his|her|their|its|both|two|one|double|big|sign\ of|left|right)\s+)*"
_SIGN = r"(?:(?:\s+(?:hand\s+)?(?:signs?|gestures?|symbols?|signals?|poses?))+)"
_NUMBER = r"(?:one|two|three|four|five|[1-5])"
# Clear in themselves.
_CLEAR = rf"""
    thumbs?[\s-]+(?:up|down) {_SIGN}?
  | (?:inverted\s+)?(?:peace|victory|okay|ok|o\.k\.|rock\ (?:and|n|'n')\ roll|shaka|hang\ loose|call\ me|devil\ horns?
      |finger\ heart|time[\s-]?out|vulcan){_SIGN}
  | (?:hang\ loose|devil\ horns|finger\ guns?|middle\ fingers?|high[\s-]five)
  | (?:clenched|closed|raised)\s+fists?
  | {_NUMBER}\s+fingers?\s+(?:up|raised|in\ the\ air|extended)
  | (?:(?:index|pointer|little|ring|pinky|middle|fore)\s*)fingers?\s+(?:up|raised|in\ the\ air|extended)
  | fingers?\s+(?:on|to|over|against|at|up\ to)\s+(?:(?:his|her|their|the|its)\s+)?(?:lips?|mouth)
"""
# Gestures only with a word for making them: people also stand beside a stop sign and wear a heart.
_VAGUE = rf"""
    (?:(?:peace|victory|okay|ok|rock|stop|heart|hush|silence|quiet|phone|call|telephone|gun|v|x|wave|hand|finger)
      (?:\ shape)?{_SIGN}
  | {_NUMBER}\s+fingers? | (?:hand|finger)\ heart | (?:heart|o)\ shape | fists? | open\ palms? | thumbs?
  | (?:(?:index|little|pinky)\s+)?fingers?(?:\ guns?)?
  | peace | {_SIGN})
"""
_THING = r"(?:tattoos?|shirts?|t-shirts?|necklaces?|earrings?|logos?|stickers?|posters?|emojis?|paintings?|balloons?)"
_ASIDE = r"""
    (?: \s+ with \s+ (?:(?:his|her|their|both|one|the|a|left|right|two)\s+)+ (?:hands?|fingers?|thumbs?) )?
    (?: \s+ (?:up|down|raised|in\ the\ air) \b )?
    (?: \s+ (?:to|at|for|towards?) \s+ (?:(?:the|a)\s+)? (?:camera|viewer|photo(?:graph)?|picture|audience|crowd) )?
"""
_NAMED = re.compile(
    rf"{_JOINED} (?: \b{_VERB}\s+{_WHOSE}(?:{_CLEAR}|{_VAGUE}) | (?<!\w){_WHOSE}(?:{_CLEAR}) )"
    rf"(?!\w|\s+{_THING}\b) {_ASIDE}",
    re.IGNORECASE | re.VERBOSE,
)
_DANGLING = re.compile(
    r"^(?:(?:by|from|of|and|with|while|is)\s+)+|(?:[\s,;.]+(?:and|with|while|is|are|who|as|or|a|an|the|his|her|their))+$",
    re.IGNORECASE,
)


def remove_gesture_words(text: str) -> str:
    """`text` without what it says of a gesture, and without the words that led up to it; else as it was."""
    shorter = _NAMED.sub(" ", text)
    if shorter == text:
        return text
    shorter = re.sub(r"\s+([,;.])", r"\1", " ".join(shorter.split()))
    return _DANGLING.sub("", shorter.strip(" ,;"))
