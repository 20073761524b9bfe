/*
 * The whole of a guest for the test of the aarch64 kernel: says what it runs on, and powers off. Freestanding, since the
 * cross-compiler's C library is not installed.
 */

#define SYS_uname 160
#define SYS_write 64
#define SYS_reboot 142

static long call(long number, long a, long b, long c)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
}

static void say(const char *text)
{
	long length = 0;

	while (text[length])
		length++;
	call(SYS_write, 1, (long)text, length);
}

void _start(void)
{
	/* Six fields: the third is the release, the fifth the machine. */
	static char name[6][65];

	call(SYS_uname, (long)name, 0, 0);
	say("init: Linux ");
	say(name[2]);
	say(" on ");
	say(name[4]);
	say("\n");
	/* LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF; see reboot(2). */
	call(SYS_reboot, 0xfee1dead, 672274793, 0x4321fedc);
	say("init: still there\n");
	for (;;)
		;
}
