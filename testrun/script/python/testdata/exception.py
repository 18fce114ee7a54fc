def parse(text):
    return int(text)


try:
    parse("{")
except ValueError as e:
    raise RuntimeError("bad reply") from e
