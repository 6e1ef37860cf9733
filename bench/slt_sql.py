"""Statements as tokens: what kind they are, which names they have, and the parts of those that a catalog needs."""
import re

TOKEN = re.compile(r"""
    (?P<blank>\s+|--[^\n]*|/\*.*?\*/)
  | (?P<text>[bBxXeEnN]?'(?:''|[^'])*')
  | (?P<quoted>"(?:""|[^"])*")
  | (?P<word>[^\W\d][\w$]*)
  | (?P<number>\d[\w.]*)
  | (?P<sign>::|<>|<=|>=|!=|\|\||->>|->|=>|.)
""", re.X | re.S)
QUERIES = {"SELECT", "VALUES", "WITH", "TABLE", "FROM"}
SETTINGS = {"SET", "RESET", "SHOW"}
# Words that end the type of a column.
AFTER_TYPE = {"NOT", "NULL", "PRIMARY", "UNIQUE", "DEFAULT", "CHECK", "REFERENCES", "CONSTRAINT", "GENERATED", "COLLATE"}
CONSTRAINTS = {"PRIMARY", "UNIQUE", "CONSTRAINT", "FOREIGN", "CHECK"}


class NotUnderstood(Exception):
    """A statement that the catalog cannot follow."""


class Tokens:
    """Tokens of a statement without blanks, and a position among them."""

    def __init__(self, sql):
        self.sql = sql
        self.found = [(match.lastgroup, match[0], match.start(), match.end()) for match in TOKEN.finditer(sql) if match.lastgroup != "blank"]
        while self.found and self.found[-1][1] == ";":
            self.found.pop()
        self.at = 0

    def word(self, ahead=0):
        """The token in upper case, if it is a word or a sign."""
        if self.at + ahead >= len(self.found):
            return ""
        kind, text, *_ = self.found[self.at + ahead]
        return text.upper() if kind in ("word", "sign") else ""

    def takes(self, *words):
        """Passes over words, if they come next."""
        if all(self.word(ahead) == word for ahead, word in enumerate(words)):
            self.at += len(words)
            return True
        return False

    def expects(self, *words):
        if not self.takes(*words):
            raise NotUnderstood(f"no {' '.join(words)}")

    def name(self):
        """An identifier, as DataFusion reads it."""
        if self.at >= len(self.found) or self.found[self.at][0] not in ("word", "quoted"):
            raise NotUnderstood("no name")
        kind, text, *_ = self.found[self.at]
        self.at += 1
        return identifier(kind, text)

    def text(self):
        if self.at >= len(self.found) or self.found[self.at][0] != "text":
            raise NotUnderstood("no text in quotes")
        self.at += 1
        return self.found[self.at - 1][1][1:-1].replace("''", "'")

    def rest(self):
        """The statement from here on, without a semicolon at its end."""
        return self.sql[self.found[self.at][2]:self.found[-1][3]] if self.at < len(self.found) else ""

    def in_parentheses(self, brackets="([)]"):
        """Passes over a list in parentheses. Gives the tokens of each of its items. `brackets` nest: those that open, then those that close."""
        opening, closing = brackets[:len(brackets) // 2], brackets[len(brackets) // 2:]
        self.expects("(")
        items, depth = [[]], 0
        while self.at < len(self.found):
            token = self.found[self.at]
            self.at += 1
            if depth == 0 and token[1] == ")":
                return [item for item in items if item]
            if depth == 0 and token[1] == ",":
                items.append([])
                continue
            depth += (token[1] in opening) - (token[1] in closing)
            items[-1].append(token)
        raise NotUnderstood("an open parenthesis")


def identifier(kind, text):
    return text[1:-1].replace('""', '"') if kind == "quoted" else text.lower()


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def kind(sql):
    """`query`, `explain`, `setting`, or the words of another statement."""
    tokens = Tokens(sql)
    while tokens.takes("("):
        pass
    first = tokens.word()
    if first in QUERIES:
        return "query"
    return {"EXPLAIN": "explain", **dict.fromkeys(SETTINGS, "setting")}.get(first, first.lower())


def names(sql):
    """All identifiers of a statement: names of tables are among them."""
    return {identifier(kind, text) for kind, text, *_ in Tokens(sql).found if kind in ("word", "quoted")}


def defined(sql):
    """Names that a query defines by WITH."""
    tokens, found = Tokens(sql).found, set()
    for at, (_, text, *_) in enumerate(tokens):
        if text.upper() == "AS" and at and at + 1 < len(tokens) and tokens[at + 1][1] == "(":
            before = at - 1
            if tokens[before][1] == ")":
                while before > 0 and tokens[before][1] != "(":
                    before -= 1
                before -= 1
            if before >= 0 and tokens[before][0] in ("word", "quoted"):
                found.add(identifier(*tokens[before][:2]))
    return found


def with_queries(sql, parts):
    """A query with others, of a name and a text each, in front of it."""
    if not parts:
        return Tokens(sql).rest() or sql
    tokens = Tokens(sql)
    has_with = tokens.takes("WITH")
    recursive = "RECURSIVE " if has_with and tokens.takes("RECURSIVE") else ""
    defined = ",\n".join(f"{quoted(name)} AS ({text}\n)" for name, text in parts)
    return f"WITH {recursive}{defined}{',' if has_with else ''}\n{tokens.rest()}"


def outer_clause(sql, word):
    """Where a clause begins that is in no parentheses; None without one."""
    depth = 0
    for kind, text, start, _ in Tokens(sql).found:
        depth += (text == "(") - (text == ")")
        if depth == 0 and kind == "word" and text.upper() == word:
            return start
    return None


def orders_rows(sql):
    """Whether the query orders its rows."""
    return outer_clause(sql, "ORDER") is not None


def without_limit(sql):
    """The query without its LIMIT and OFFSET, if it has a LIMIT and no order of its rows."""
    limit = outer_clause(sql, "LIMIT")
    if limit is None or orders_rows(sql):
        return None
    return sql[:min(limit, outer_clause(sql, "OFFSET") or limit)]


def columns(tokens):
    """Columns of a table in parentheses: name, type, default; and whether it has a key."""
    found, has_key = [], False
    for item in tokens.in_parentheses("([<)]>"):
        words = [text.upper() if kind == "word" else "" for kind, text, *_ in item]
        has_key |= "PRIMARY" in words or "UNIQUE" in words
        if words[0] in CONSTRAINTS and len(item) > 1 and words[1] in ("KEY", "", "(") + tuple(AFTER_TYPE):
            continue
        end = next((at for at, word in enumerate(words) if at > 0 and word in AFTER_TYPE), len(item))
        type_ = tokens.sql[item[1][2]:item[end - 1][3]] if end > 1 else ""
        default = words.index("DEFAULT") + 1 if "DEFAULT" in words else None
        default = tokens.sql[item[default][2]:item[-1][3]] if default else "NULL"
        found.append((identifier(*item[0][:2]), type_, default))
    return found, has_key
