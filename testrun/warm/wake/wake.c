// wake takes the place of the guest's shell while the guest is saved, and does what a
// guest needs as soon as it has been restored. It reads lines of words from its
// standard input and answers each with a line that begins with "vmt-says ":
//
//	time                        the answer is what time it is: SECONDS NANOSECONDS
//	step NANOSECONDS            by how much the clock is slow; fast, if negative
//	entropy SEED                64 hexadecimal digits that no other clone has
//	mount SOURCE TARGET TYPE FLAGS OPTIONS
//	unlink FILE
//	exit
//
// Any number of commands in a line, in their order; the answer is "done", or "failed"
// and the number of a command's first argument (that of the line's first word is 0). In
// words, \ooo is a byte in octal. The first line that it writes is "ready".
//
// It runs already when the guest is saved because an emulated CPU, which has
// forgotten all that it had translated, takes a tenth of a second for a shell to start
// a program. Guests of tests need not have a program that sets the clock to the
// nanosecond, and a shell can make none of these system calls. There is no C library
// here, so that the program is a kilobyte.

enum { READ_WRITE = 2, REALTIME = 0, PRIO_PROCESS = 0 };
enum { SYS_read = 0, SYS_write = 1, SYS_open = 2, SYS_ioctl = 16, SYS_exit = 60, SYS_unlink = 87, SYS_mount = 165, SYS_clock_settime = 227, SYS_clock_gettime = 228, SYS_setpriority = 141 };
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

static void say(const char *s) {
	long n = 0;

	while (s[n])
		++n;
	call(SYS_write, 1, (long)s, n, 0, 0);
}

static char *put(char *to, long n) {
	char digits[20];
	int i = 0;

	do
		digits[i++] = '0' + n % 10;
	while (n /= 10);
	while (i)
		*to++ = digits[--i];
	return to;
}

// say_numbers writes a line of one number, or of two if the second is not negative.
static void say_numbers(const char *s, long a, long b) {
	char text[80], *to = text;

	while (*s)
		*to++ = *s++;
	to = put(to, a);
	if (b >= 0) {
		*to++ = ' ';
		to = put(to, b);
	}
	*to++ = '\n';
	*to = 0;
	say(text);
}

static void time(void) {
	struct { long seconds, nanoseconds; } now = {0, 0};

	call(SYS_clock_gettime, REALTIME, (long)&now, 0, 0, 0);
	say_numbers("vmt-says ", now.seconds, now.nanoseconds);
}

static void leave(int code) {
	call(SYS_exit, code, 0, 0, 0, 0);
}

// obey executes the commands of a line.
static void obey(int n, char **word) {
	int i = 0, leaving = 0;

	if (n == 1 && same(word[0], "time")) {
		time();
		return;
	}
	while (i < n) {
		char *command = word[i], **a = word + i + 1;
		int left = n - i - 1, failed;

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
		} else if (same(command, "exit")) {
			failed = 0;
			leaving = 1;
			++i;
		} else {
			failed = 1;
		}
		if (failed) {
			say_numbers("vmt-says failed ", a - word, -1);
			return;
		}
	}
	say("vmt-says done\n");
	if (leaving)
		leave(0);
}

// unescape undoes \ooo.
static void unescape(char *s) {
	char *to = s;

	for (; *s; ++to) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*to = (s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0');
			s += 4;
		} else {
			*to = *s++;
		}
	}
	*to = 0;
}

static char line[1 << 16];
static char *words[1 << 10];

// serve reads one byte at a time: what comes behind a line is the shell's.
static void serve(void) {
	const int most_words = sizeof words / sizeof *words, most_bytes = sizeof line - 1;

	// Before all that wakes up when the clock jumps and mounts appear. Not SCHED_FIFO:
	// in a machine that is put back, time jumps for whoever had the CPU when it was
	// saved, and a real-time process would be throttled for as long.
	call(SYS_setpriority, PRIO_PROCESS, 0, -20, 0, 0);
	say("vmt-says ready\n");
	for (;;) {
		int length = 0, n = 0;
		char c;

		for (;;) {
			if (call(SYS_read, 0, (long)&c, 1, 0, 0) != 1)
				leave(1);
			if (c == '\n')
				break;
			if (length < most_bytes)
				line[length++] = c;
		}
		line[length] = 0;
		for (char *s = line; *s && n < most_words;) {
			words[n++] = s;
			while (*s && *s != ' ')
				++s;
			if (*s)
				*s++ = 0;
		}
		for (int i = 0; i < n; ++i)
			unescape(words[i]);
		obey(n, words);
	}
}

// start gets the stack as the kernel leaves it: argc, argv. Called otherwise than
// with "serve", the program shows that it can be executed.
__attribute__((used)) static void start(long *stack) {
	if (stack[0] == 2 && same((char *)stack[2], "serve"))
		serve();
	leave(255);
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
