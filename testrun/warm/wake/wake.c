// wake COMMAND ARGUMENT... does what a guest needs as soon as it has been restored:
//
//	step NANOSECONDS            by how much the clock is slow; fast, if negative
//	entropy SEED                64 hexadecimal digits that no other clone has
//	mount SOURCE TARGET TYPE FLAGS OPTIONS
//	unlink FILE
//
// Any number of commands, in their order; the exit code is the position of the
// first argument of one that failed, 255 of one that was wrong. Guests of tests need
// not have a program that sets the clock to the nanosecond, a shell can make none of
// these system calls, and an emulated CPU takes a tenth of a second for "mount".
//
// There is no C library here, so that the program is a kilobyte.

enum { READ_WRITE = 2, REALTIME = 0 };
enum { SYS_open = 2, SYS_ioctl = 16, SYS_exit = 60, SYS_unlink = 87, SYS_mount = 165, SYS_clock_settime = 227, SYS_clock_gettime = 228 };
enum { RNDADDENTROPY = 0x40085203, RNDRESEEDCRNG = 0x5207 };

static long call(long number, long a, long b, long c, long d, long e) {
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	__asm__ volatile("syscall" : "=a"(result)
		: "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return result;
}

static int same(const char *a, const char *b) {
	for (; *a && *a == *b; ++a, ++b)
		;
	return *a == *b;
}

static long decimal(const char **s) {
	long n = 0;
	for (; **s >= '0' && **s <= '9'; ++*s)
		n = n * 10 + (**s - '0');
	return n;
}

static int digit(char c) {
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int step(const char *s) {
	const long second = 1000000000;
	struct { long seconds, nanoseconds; } now;
	int fast = *s == '-';

	s += fast;
	long by = decimal(&s);
	if (*s || call(SYS_clock_gettime, REALTIME, (long)&now, 0, 0, 0))
		return 1;
	by = now.nanoseconds + (fast ? -by : by);
	now.seconds += by / second;
	now.nanoseconds = by % second;
	if (now.nanoseconds < 0) {
		now.nanoseconds += second;
		--now.seconds;
	}
	return call(SYS_clock_settime, REALTIME, (long)&now, 0, 0, 0) != 0;
}

static int entropy(const char *s) {
	struct { int bits, size; unsigned char seed[32]; } e = {256, 32, {0}};

	for (int i = 0; i < 32; ++i, s += 2) {
		if (digit(s[0]) < 0 || digit(s[1]) < 0)
			return 1;
		e.seed[i] = digit(s[0]) * 16 + digit(s[1]);
	}
	long fd = call(SYS_open, (long)"/dev/urandom", READ_WRITE, 0, 0, 0);
	// Added entropy counts from the next reseeding on, which is now.
	return fd < 0 || call(SYS_ioctl, fd, RNDADDENTROPY, (long)&e, 0, 0) ||
		call(SYS_ioctl, fd, RNDRESEEDCRNG, 0, 0, 0);
}

static int wake(int argc, char **argv) {
	for (int i = 1; i < argc;) {
		char *command = argv[i], **a = argv + i + 1;
		int left = argc - i - 1, failed;

		if (same(command, "step") && left >= 1) {
			failed = step(a[0]);
			i += 2;
		} else if (same(command, "entropy") && left >= 1) {
			failed = entropy(a[0]);
			i += 2;
		} else if (same(command, "mount") && left >= 5) {
			const char *flags = a[3];
			failed = call(SYS_mount, (long)a[0], (long)a[1], (long)a[2], decimal(&flags), (long)a[4]) != 0;
			i += 6;
		} else if (same(command, "unlink") && left >= 1) {
			failed = call(SYS_unlink, (long)a[0], 0, 0, 0, 0) != 0;
			i += 2;
		} else {
			return 255;
		}
		if (failed)
			return a - argv;
	}
	return 0;
}

// start gets the stack as the kernel leaves it: argc, argv.
__attribute__((used)) static void start(long *stack) {
	call(SYS_exit, wake(stack[0], (char **)(stack + 1)), 0, 0, 0, 0);
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
