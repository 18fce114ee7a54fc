# machines: screen
# Reads the screen.
screen.wait_until_tty_matches("1", "login: ")
screen.succeed("printf '\\033c\\n\\n   The quick brown fox jumps over the lazy dog\\n' > /dev/tty1")
screen.wait_for_text("quick brown fox", timeout=300)

variants = screen.get_screen_text_variants()
assert isinstance(variants, list) and variants
assert any("lazy dog" in v for v in variants), variants
assert "lazy" in screen.get_screen_text()

with subtest("text that is not there"):
    try:
        screen.wait_for_text("elephant", timeout=1)
    except Exception as e:
        assert "timed out" in str(e), e
    else:
        raise Exception("there is an elephant on the screen")
