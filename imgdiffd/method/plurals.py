"""Makes the plural of an English noun, by WordNet's irregular ones and the rules of spelling."""

from functools import cache, lru_cache
from importlib import resources

from imgdiffd.method.nouns import noun_lemma

# Same in both numbers, or already a plural.
INVARIANT = frozenset(
    {"aircraft", "bison", "buffalo", "cattle", "cod", "deer", "elk", "fish", "moose", "reindeer", "salmon", "sheep"}
    | {"shrimp", "squid", "swine", "trout"}
)
_WITH_ES = ("s", "x", "z", "ch", "sh")
_O_WITH_ES = ("potato", "tomato", "mango", "buffalo", "volcano", "mosquito", "hero")


@cache
def _irregular() -> dict[str, str]:
    text = resources.files("imgdiffd.method").joinpath("data", "noun_exceptions.txt").read_text("utf-8")
    found: dict[str, str] = {}
    for form, lemma in map(str.split, text.splitlines()):
        if form.endswith(("men", "ves", "feet", "geese", "mice", "lice", "teeth", "oxen", "children")):
            found.setdefault(lemma, form)
    return found


@lru_cache(maxsize=4096)
def plural_of(name: str) -> str:
    """The plural of a lower-case name; of several words, that of the last one: "tennis players"."""
    before, _, noun = name.rpartition(" ")
    return f"{before} {_plural(noun)}".lstrip()


def _plural(noun: str) -> str:
    if noun in INVARIANT or (
        noun.endswith("s") and noun_lemma(noun) == noun and not noun.endswith(("ss", "us", "is", "os"))
    ):
        return noun  # "shorts"
    if noun in _irregular():
        return _irregular()[noun]
    if noun.endswith("man") and len(noun) > 4:
        return f"{noun[:-3]}men"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun + ("es" if noun.endswith(_WITH_ES) or noun in _O_WITH_ES else "s")
