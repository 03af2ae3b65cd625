/*
 * driver: a fuzz harness as a unit test, without a fuzzing engine: every file of its corpus, then a
 * fixed number of mutations of them from a fixed seed, under the sanitizers. What `make fuzz` finds
 * in hours is put into the corpus, and is replayed here for ever.
 *
 * FUZZ_SEED and FUZZ_RUNS in the environment choose other mutations.
 */
#include "tests/unit/test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define INPUT_MAX  KIB(64)
#define CORPUS_MAX 4096
#define RUNS	   3000

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

struct input {
	u8 *bytes;
	size_t len;
};

static struct input corpus[CORPUS_MAX];
static unsigned n_corpus;
static u64 state_of_chance;

/* xorshift64*: short, and the same everywhere. */
static u64 chance(u64 below)
{
	state_of_chance ^= state_of_chance >> 12;
	state_of_chance ^= state_of_chance << 25;
	state_of_chance ^= state_of_chance >> 27;
	return (state_of_chance * 0x2545f4914f6cdd1dull >> 11) % below;
}

static void load(const char *dir, const char *name)
{
	char path[4096];
	struct input *in = &corpus[n_corpus];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "rb");
	if (!f)
		return;
	in->bytes = malloc(INPUT_MAX);
	in->len = fread(in->bytes, 1, INPUT_MAX, f);
	fclose(f);
	n_corpus++;
}

static int load_corpus(void **state)
{
	struct dirent **names;
	int n = scandir(FUZZ_CORPUS, &names, NULL, alphasort);

	(void)state;
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.' && n_corpus < CORPUS_MAX)
			load(FUZZ_CORPUS, names[i]->d_name);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return 0;
}

static int free_corpus(void **state)
{
	(void)state;
	for (unsigned i = 0; i < n_corpus; i++)
		free(corpus[i].bytes);
	return 0;
}

static u64 number(const char *name, u64 otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static size_t mutate_once(u8 *bytes, size_t len)
{
	static const u8 edge[] = { 0, 1, 0x7f, 0x80, 0xff, 0xfe, '"', '{', '\r', '\n', ':', ' ' };
	size_t at = len ? chance(len) : 0, n;

	switch (len ? chance(7) : 5) {
	case 0:
		bytes[at] ^= (u8)(1u << chance(8));
		break;
	case 1:
		bytes[at] = edge[chance(sizeof edge)];
		break;
	case 2:
		bytes[at] = (u8)chance(256);
		break;
	case 3: /* cut a piece out */
		n = 1 + chance(MIN(len - at, 32));
		memmove(bytes + at, bytes + at + n, len - at - n);
		return len - n;
	case 4: /* a whole word at the edge of its range */
		memset(bytes + at, chance(2) ? 0xff : 0, MIN((size_t)8, len - at));
		break;
	case 5: /* put a piece in */
		n = MIN(1 + chance(16), INPUT_MAX - len);
		memmove(bytes + at + n, bytes + at, len - at);
		for (size_t i = 0; i < n; i++)
			bytes[at + i] = (u8)chance(256);
		return len + n;
	default: /* repeat a piece elsewhere */
		n = 1 + chance(MIN(len - at, 32));
		memmove(bytes + chance(len - n + 1), bytes + at, n);
		break;
	}
	return len;
}

static void the_corpus_is_survived(void **state)
{
	(void)state;
	assert_true(n_corpus > 0);
	for (unsigned i = 0; i < n_corpus; i++) {
		/* A copy of just its size, so that a read past the end is caught. */
		u8 *exact = malloc(MAX(corpus[i].len, (size_t)1));

		memcpy(exact, corpus[i].bytes, corpus[i].len);
		LLVMFuzzerTestOneInput(exact, corpus[i].len);
		free(exact);
	}
}

static void mutations_are_survived(void **state)
{
	u64 runs = number("FUZZ_RUNS", RUNS);

	(void)state;
	state_of_chance = number("FUZZ_SEED", 1) | 1;
	for (u64 i = 0; i < runs; i++) {
		const struct input *from = &corpus[chance(n_corpus)];
		u8 *bytes = malloc(INPUT_MAX);
		size_t len = from->len;
		u8 *exact;

		memcpy(bytes, from->bytes, len);
		for (u64 n = 1 + chance(6); n; n--)
			len = mutate_once(bytes, len);
		exact = realloc(bytes, MAX(len, (size_t)1));
		LLVMFuzzerTestOneInput(exact, len);
		free(exact);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_corpus_is_survived),
		cmocka_unit_test(mutations_are_survived),
	};

	return cmocka_run_group_tests_name(FUZZ_NAME, tests, load_corpus, free_corpus);
}
