# machines: screen
# Pictures of the screen, under all the names that people give.
import pathlib
import tempfile

PNG = b"\x89PNG\r\n\x1a\n"
out = pathlib.Path(screen.out_dir)

screen.wait_until_tty_matches("1", "login: ")
screen.screenshot("prompt")
screen.screenshot("prompt.two.png")
with tempfile.TemporaryDirectory() as directory:
    screen.screenshot(f"{directory}/elsewhere.png")
    elsewhere = pathlib.Path(directory, "elsewhere.png").read_bytes()

for picture in [(out / "prompt.png").read_bytes(), (out / "prompt.two.png").read_bytes(), elsewhere]:
    assert picture.startswith(PNG), picture[:16]
    width = int.from_bytes(picture[16:20], "big")
    height = int.from_bytes(picture[20:24], "big")
    assert width >= 640 and height >= 400, (width, height)

screen.send_chars("another picture", delay=0.001)
screen.wait_until_tty_matches("1", "another picture")
screen.screenshot("typed")
assert (out / "typed.png").read_bytes() != (out / "prompt.png").read_bytes()
