# machines: machine
# t is a unittest.TestCase.
machine.wait_for_unit("multi-user.target")

kernel = machine.succeed("uname -s").strip()
t.assertEqual(kernel, "Linux")
t.assertIn("root", machine.succeed("cat /etc/passwd"))
t.assertNotIn("mallory", machine.succeed("cat /etc/passwd"))
t.assertRegex(machine.succeed("uname -r"), r"^\d+\.\d+")
t.assertGreater(int(machine.succeed("nproc")), 0)
t.assertAlmostEqual(float(machine.succeed("echo 0.1")), 0.1)
t.assertCountEqual(machine.succeed("echo b a c").split(), ["a", "b", "c"])
t.assertTrue(machine.is_up())
t.assertIsNone(machine.sleep(0))

with t.assertRaises(AssertionError) as caught:
    t.assertEqual(machine.succeed("echo one").strip(), "two", "numbers")
assert "numbers" in str(caught.exception)
assert issubclass(t.failureException, AssertionError)

for number in 1, 2, 3:
    with t.subTest(number=number):
        t.assertEqual(machine.succeed(f"echo {number}"), f"{number}\n")
