# layers.awk: who may include whom (docs/architecture.md, "Layers"). Reads C files, prints what is
# against the rules, exits 1 if anything is.

BEGIN {
	# directory or file of the includer -> regular expression of what it may include of ours
	base = "(base|err|log|io|pagemap)\\.h"
	allow["src/virtio"] = base "|(mem|loop|bus|record|metrics)\\.h|virtio/[a-z0-9_]+\\.h"
	allow["src/boot"] = base "|(mem|config|vcpu)\\.h|boot/[a-z0-9_]+\\.h"
	allow["api"] = base "|(vm|config|instance|snapshot_request|json|schema|loop|version)\\.h|api/[a-z0-9_]+\\.h"
	allow["src/jail"] = base "|version\\.h|jail/[a-z0-9_]+\\.h"
	low["mem"] = low["loop"] = low["bus"] = low["err"] = low["log"] = low["io"] = low["pagemap"] = 1
	allow["low"] = base "|boot/layout\\.h"
	bad = 0
}

function resolve(dir, name,    parts, n, i, out, depth) {
	n = split(dir "/" name, parts, "/")
	depth = 0
	for (i = 1; i <= n; i++) {
		if (parts[i] == "..") depth--
		else if (parts[i] != ".") out[++depth] = parts[i]
	}
	name = out[1]
	for (i = 2; i <= depth; i++) name = name "/" out[i]
	return name
}

/^#include "/ {
	split($0, q, "\"")
	dir = FILENAME; sub(/\/[^\/]*$/, "", dir)
	noun = FILENAME; sub(/.*\//, "", noun); sub(/\.[ch]$/, "", noun)
	target = resolve(dir, q[2])
	sub(/^src\//, "", target)
	short = target; sub(/^vmm\//, "", short)
	rule = dir
	if (dir == "src/vmm" && noun in low) rule = "low"
	if (!(rule in allow) || short == noun ".h") next
	if (short !~ "^(" allow[rule] ")$") {
		printf "%s:%d: %s may not include %s\n", FILENAME, FNR, rule == "low" ? noun : dir, q[2]
		bad = 1
	}
}

/^#include <linux\/kvm.h>/ && FILENAME != "src/jail/filter.c" && FILENAME ~ /^(src\/virtio|src\/boot|api|src\/jail)\// {
	printf "%s:%d: knows KVM\n", FILENAME, FNR
	bad = 1
}

END { exit bad }
