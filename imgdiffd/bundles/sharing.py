"""Roles that share another role's model: `rewriter = "captioner"`, written out as the table that it stands for."""

from collections.abc import Mapping

from imgdiffd.errors import BundleError
from imgdiffd.pipeline import Role

SAME_AS = "same_as"
LEXICON = "lexicon"  # a rewriter's source: no model, but the names of objects that come with imgdiffd

# Within a set, one model can play every role: it reads text and images, or it paints.
_KINDS = (frozenset({Role.REWRITER, Role.CAPTIONER, Role.JUDGE}), frozenset({Role.PAINTER, Role.ERASER}))
_OF_THE_MODEL = ("source", "revision", "variant", "vae", "licence", "precision", "weights_gb", "allow_pickle")
_INHERITED = (*_OF_THE_MODEL, "chat_template")

Table = Mapping[str, object]


def sharing_roles(tables: Table) -> dict[Role, Role]:
    """Each role of a bundle file that names another role as its model, and the role that it names.

    `rewriter = "captioner"` is short for a table with `same_as = "captioner"`. Raises BundleError where what is named
    is not a role whose model can play it.
    """
    found: dict[Role, Role] = {}
    for role in Role:
        table = tables.get(role)
        named = table.get(SAME_AS) if isinstance(table, Mapping) else table
        if named is None or isinstance(table, list | int | float) or _is_lexicon(role, named):
            continue
        if named not in list(Role):
            hint = (
                f'name a role, as in rewriter = "captioner", or give [{role}] a source; the roles are'
                f' {", ".join(Role)}; rewriter = "lexicon" needs no model'
            )
            raise BundleError(f"{role}: there is no role {named!r} whose model it could share", hint=hint)
        found[role] = Role(str(named))
    for role, named in found.items():
        _check(role, named, tables)
    return found


def _is_lexicon(role: Role, named: object) -> bool:
    return role is Role.REWRITER and named == LEXICON


def _check(role: Role, named: Role, tables: Table) -> None:
    if named == role:
        raise BundleError(f"{role}: it names itself as its model", hint=f"give [{role}] a source, or name another role")
    if not any({role, named} <= kind for kind in _KINDS):
        may = "; ".join(", ".join(sorted(kind)) for kind in _KINDS)
        raise BundleError(
            f"{role}: a {named} cannot play the {role}", hint=f"give [{role}] a source; roles that may share: {may}"
        )
    if named not in tables:
        raise BundleError(f"{role}: it shares the {named}'s model, but there is no {named}", hint=f"add [{named}]")


def written_out(tables: Table, sharing: Mapping[Role, Role]) -> dict[str, object]:
    """`tables` with a whole table for each of `sharing`, which has the model and the chat template of the role named.

    Raises BundleError where roles name each other in a circle, and where a role that shares a model says which one.
    """
    return {key: _table(key, tables, sharing) for key in tables}


def _table(key: str, tables: Table, sharing: Mapping[Role, Role]) -> object:
    if key == Role.REWRITER and tables[key] == LEXICON:
        return {"source": LEXICON}
    if key not in sharing:
        return tables[key]
    path = [Role(key)]
    while path[-1] in sharing:
        path.append(sharing[path[-1]])
        if path[-1] in path[:-1]:
            raise BundleError(
                f"{key}: {' → '.join(path)}: none of these roles has a model", hint=f"give [{path[-1]}] a source"
            )
    given, own = _table(path[1], tables, sharing), tables[key]
    mine = {name: value for name, value in own.items() if name != SAME_AS} if isinstance(own, Mapping) else {}
    for name in _OF_THE_MODEL:
        if name in mine:
            raise BundleError(f"{key}.{name}: it shares the {path[1]}'s model, which has one", hint=_instead(key, path))
    shared = {name: given[name] for name in _INHERITED if name in given} if isinstance(given, Mapping) else {}
    return {**shared, **mine}


def _instead(key: str, path: list[Role]) -> str:
    return f"set it under [{path[-1]}] for both, or remove {SAME_AS} from [{key}] and give it a source"
