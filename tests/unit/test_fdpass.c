/* fdpass: descriptors arrive, and no peer can make us hold what we did not ask for. */
#include "src/vmm/fdpass.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

static struct err err;
static char path[64];

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void a_message_with_descriptors_arrives_whole(void **state)
{
	int pair[2], fds[2], got[2];
	char text[8] = "1234567", back[8];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	fds[0] = memfd_create("a", 0);
	fds[1] = memfd_create("b", 0);
	assert_int_equal(write(fds[1], "second", 6), 6);
	assert_int_equal(fdpass_send(pair[0], text, sizeof text, fds, 2), 0);
	assert_int_equal(fdpass_recv(pair[1], back, sizeof back, got, 2, 1000, &err), 0);
	assert_string_equal(back, text);
	assert_int_equal(pread(got[1], back, 6, 0), 6);
	assert_memory_equal(back, "second", 6);
	for (int i = 0; i < 2; i++) {
		close(pair[i]);
		close(fds[i]);
		close(got[i]);
	}
}

static void what_was_not_asked_for_is_closed(void **state)
{
	static const struct {
		size_t bytes;
		unsigned fds;
	} wrong[] = { { 8, 1 }, { 8, 3 }, { 7, 2 }, { 9, 2 }, { 0, 2 }, { 100, 4 } };
	char data[128] = { 0 };
	int pair[2], fds[4], got[2];
	unsigned before;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	for (int i = 0; i < 4; i++)
		fds[i] = memfd_create("x", 0);
	before = open_fds();
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(fdpass_send(pair[0], data, wrong[i].bytes, fds, wrong[i].fds), 0);
		assert_true(fdpass_recv(pair[1], data, 8, got, 2, 1000, &err) < 0);
		assert_int_equal(open_fds(), before);
	}
	assert_int_equal(send(pair[0], data, 8, 0), 8); /* none at all */
	assert_int_equal(fdpass_recv(pair[1], data, 8, got, 2, 1000, &err), -EPROTO);
	assert_int_equal(open_fds(), before);
	close(pair[0]);
	assert_true(fdpass_recv(pair[1], data, 8, got, 2, 1000, &err) < 0);
	close(pair[1]);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

static void who_stays_silent_is_given_up(void **state)
{
	int pair[2], got[1];
	char data[8];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(fdpass_recv(pair[1], data, 8, got, 1, 10, &err), -ETIMEDOUT);
	close(pair[0]);
	close(pair[1]);
}

static void paths_that_are_none(void **state)
{
	char longer[256];
	int fd;

	(void)state;
	memset(longer, 'x', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	assert_int_equal(fdpass_listen("", &err), -ENAMETOOLONG);
	assert_int_equal(fdpass_listen(longer, &err), -ENAMETOOLONG);
	assert_int_equal(fdpass_connect(longer, SOCK_SEQPACKET, 10, &err), -ENAMETOOLONG);
	assert_int_equal(fdpass_connect("/nowhere/at/all", SOCK_SEQPACKET, 10, &err), -ENOENT);
	snprintf(path, sizeof path, "/tmp/mf-unit-fdpass-%d", (int)getpid());
	fd = fdpass_listen(path, &err);
	assert_true(fd >= 0);
	assert_int_equal(fdpass_listen(path, &err), -EADDRINUSE);
	close(fd);
	assert_int_equal(fdpass_connect(path, SOCK_SEQPACKET, 10, &err), -ECONNREFUSED);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_with_descriptors_arrives_whole),
		cmocka_unit_test(what_was_not_asked_for_is_closed),
		cmocka_unit_test(who_stays_silent_is_given_up),
		cmocka_unit_test(paths_that_are_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
