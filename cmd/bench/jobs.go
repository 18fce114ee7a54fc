package main

import (
	"strconv"

	"vm-prebuild/cmd/internal/synthetic"
)

// job is something that people do, and the ways to do it.
type job struct {
	name       string
	fs         string                    // file system that it is done on
	closures   map[string]synthetic.Spec // by directory of the workspace
	info       string                    // which of these the job is about; made by prepare if none
	prepare    string                    // makes what all contenders find; not measured
	contenders []contender
	check      string // fails unless a contender did the job; its output is noted
	lines      []line
}

// contender is a way to do a job.
type contender struct {
	name    string
	prepare string // makes what only this one finds; not measured
	script  string
	as      user
	check   string // instead of the job's
}

// user is who does a job.
type user int

const (
	root    user = iota
	nobody       // without any privileges
	builder      // in a build sandbox of Nix, whose inputs are the closure
)

// line is a line of the table: ours must be target times faster than theirs.
type line struct {
	name         string
	ours, theirs string // names of contenders
	target       float64
	sizes        bool // what ours wrote must not be larger than theirs either; the checks print its size
}

// Names of the contenders that several jobs have.
const (
	clan     = "clan-core's method"
	loadDB   = "nix-store --load-db"
	nixCopy  = "nix copy"
	imported = "nix-closure-import"
	withDB   = "nix-closure-import --db-image"
	execDB   = "nix-closure-import exec --db-image"
)

// clanMethod is how clan-core's tests make a store of a closure. The store paths
// are relative because the source does not lie at /nix/store, which makes them
// one character shorter and changes nothing else.
const clanMethod = `
mkdir -p "$TARGET/nix/store" "$TARGET/nix/var/nix/gcroots"
cd "$SOURCE"
xargs -r -P"$(nproc)" cp --recursive --no-dereference --reflink=auto --target-directory "$TARGET/nix/store" <"$WORK/store-paths"
nix-store --load-db --store "$TARGET" <"$INFO/registration"
`

const (
	relativePaths = `sed s,^/,, "$INFO/store-paths" >"$WORK/store-paths"; `
	register      = `nix-store --load-db --store "$SOURCE" <"$INFO/registration"; `
	makeImage     = `nix-closure-import db-image --closure-info "$INFO" -o "$IMAGE"; `
	importClosure = `nix-closure-import --closure-info "$INFO" --from "$SOURCE" --store "$TARGET"`
	registerOnly  = `nix-closure-import --closure-info "$INFO" --store "$TARGET" --register-only`
	execClosure   = `nix-closure-import exec --closure-info "$INFO" --from "$SOURCE" `
)

// Checks that a job has been done. All paths must be registered, their files
// must be there, and Nix must be at home.
const (
	allValid = `
test "$(nix path-info --store "$TARGET" --all | wc -l)" = "$(wc -l <"$INFO/store-paths")"
test "$(ls "$TARGET/nix/store" | wc -l)" = "$(wc -l <"$INFO/store-paths")"
`
	allValidInExec = ` -- sh -euc '
test "$(nix path-info --all | wc -l)" = "$(wc -l <"$INFO/store-paths")"
nix-store --verify-path "$(head -n 1 "$INFO/store-paths")"
'`
)

// jobs are what is measured, with closures scaled by the given factor.
func jobs(scale float64) []*job {
	reference := synthetic.Reference().Scaled(scale)
	large := reference
	large.Paths, large.Even = max(1, reference.Files/200), true
	all := []*job{}
	for _, fs := range []string{"ext4", "xfs", "btrfs"} {
		all = append(all,
			copyJob("copy and register, "+fs, fs, reference, map[string]float64{"ext4": 1.6, "xfs": 1.3, "btrfs": 1.3}[fs]),
			copyJob("copy and register 200 files a path, "+fs, fs, large, 1.8))
	}
	return append(all,
		execJob(reference), userExecJob(reference), tenfoldJob(reference), sandboxJob(reference),
		registerJob(synthetic.Spec{Paths: 30_000, Seed: 1}.Scaled(scale)),
		derivationsJob(int(2000*scale)),
		exportJob(reference), cacheJob(reference), storeJob(reference),
	)
}

// copyJob makes a store from a closure whose files are in another one on the
// same file system.
func copyJob(name, fs string, spec synthetic.Spec, target float64) *job {
	return &job{
		name: name, fs: fs, closures: map[string]synthetic.Spec{"source": spec}, info: "source",
		prepare: relativePaths,
		contenders: []contender{
			{name: clan, script: clanMethod},
			{name: imported, script: importClosure},
		},
		check: allValid,
		lines: []line{{name: name, ours: imported, theirs: clan, target: target}},
	}
}

// execJob makes a store that a command can use, as root.
func execJob(spec synthetic.Spec) *job {
	const exec = "nix-closure-import exec"
	return &job{
		name: "exec", fs: "ext4", closures: map[string]synthetic.Spec{"source": spec}, info: "source",
		prepare: relativePaths,
		contenders: []contender{
			{name: clan, script: clanMethod, check: allValid},
			{name: exec, script: execClosure + `-- true`, check: execClosure + allValidInExec},
			{name: execDB, prepare: makeImage, script: execClosure + `--db-image "$IMAGE" -- true`, check: execClosure + `--db-image "$IMAGE"` + allValidInExec},
		},
		lines: []line{
			{name: "exec", ours: execDB, theirs: clan, target: 50},
			{name: "exec without a database image", ours: exec, theirs: clan},
		},
	}
}

// userExecJob is the same for a user without privileges.
func userExecJob(spec synthetic.Spec) *job {
	const name = "exec in a user namespace"
	return &job{
		name: name, fs: "ext4", closures: map[string]synthetic.Spec{"source": spec}, info: "source",
		prepare: relativePaths + `mkdir "$TARGET"; chmod 1777 "$TARGET"`,
		contenders: []contender{
			{name: clan, as: nobody, script: clanMethod, check: allValid},
			{name: execDB, as: nobody, prepare: makeImage, script: execClosure + `--db-image "$IMAGE" -- true`, check: execClosure + `--db-image "$IMAGE"` + allValidInExec},
		},
		lines: []line{{name: name, ours: execDB, theirs: clan, target: 50}},
	}
}

// tenfoldJob compares exec with itself, on a closure with a tenth of the bytes.
func tenfoldJob(spec synthetic.Spec) *job {
	const name, small, large = "exec, at ten times the bytes", "exec, a tenth of the bytes", "exec"
	tenth := spec
	tenth.Bytes /= 10
	return &job{
		name: name, fs: "ext4", closures: map[string]synthetic.Spec{"source": spec, "tenth": tenth}, info: "source",
		contenders: []contender{
			{
				name:    small,
				prepare: `nix-closure-import db-image --closure-info "$WORK/tenth/closure-info" -o "$IMAGE-tenth"`,
				script:  `nix-closure-import exec --closure-info "$WORK/tenth/closure-info" --from "$WORK/tenth" --db-image "$IMAGE-tenth" -- true`,
			},
			{name: large, prepare: makeImage, script: execClosure + `--db-image "$IMAGE" -- true`},
		},
		// They are the same but for noise.
		lines: []line{{name: name, ours: large, theirs: small, target: 0.9}},
	}
}

// sandboxJob is what a derivation does that tests Nix: it makes a store of its
// inputs.
func sandboxJob(spec synthetic.Spec) *job {
	const name = "exec in a build sandbox"
	return &job{
		name: name, fs: "ext4", closures: map[string]synthetic.Spec{"source": spec}, info: "source",
		prepare: relativePaths + register,
		contenders: []contender{
			{name: clan, as: builder, script: clanMethod, check: allValid},
			{name: execDB, as: builder, prepare: makeImage, script: execClosure + `--db-image "$IMAGE" -- true`, check: execClosure + `--db-image "$IMAGE"` + allValidInExec},
		},
		lines: []line{{name: name, ours: execDB, theirs: clan, target: 12}},
	}
}

// registerJob makes paths valid whose files are there already.
func registerJob(spec synthetic.Spec) *job {
	name := "register " + strconv.Itoa(spec.Paths) + " paths"
	return &job{
		name: name, fs: "ext4", closures: map[string]synthetic.Spec{"target": spec}, info: "target",
		contenders: []contender{
			{name: loadDB, script: `nix-store --load-db --store "$TARGET" <"$INFO/registration"`},
			{name: imported, script: registerOnly},
			{name: withDB, prepare: makeImage, script: registerOnly + ` --db-image "$IMAGE"`},
		},
		check: allValid,
		lines: []line{
			{name: name, ours: imported, theirs: loadDB, target: 8},
			{name: name + " with a database image", ours: withDB, theirs: loadDB, target: 100},
		},
	}
}

// derivationsJob makes derivations valid, whose outputs have to be registered,
// too.
func derivationsJob(n int) *job {
	name := "register " + strconv.Itoa(n) + " derivations"
	return &job{
		name: name, fs: "ext4", info: "target",
		prepare: instantiate(n),
		contenders: []contender{
			{name: loadDB, script: `nix-store --load-db --store "$TARGET" <"$INFO/registration"`},
			{name: imported, script: registerOnly},
		},
		check: allValid + `
test "$(nix-store --store "$TARGET" --query --outputs $(grep -- '\.drv$' "$INFO/store-paths") | wc -l)" -gt "$(wc -l <"$INFO/store-paths")"`,
		lines: []line{{name: name, ours: imported, theirs: loadDB, target: 5}},
	}
}

// exportJob makes a binary cache of a store.
func exportJob(spec synthetic.Spec) *job {
	const name, export = "export with zstd", "vm-prebuild export"
	return &job{
		name: name, fs: "ext4", closures: map[string]synthetic.Spec{"source": spec}, info: "source",
		prepare: register,
		contenders: []contender{
			{name: nixCopy, script: `nix copy --from "$SOURCE" --to "file://$CACHE?compression=zstd" --all`},
			{name: export, script: `vm-prebuild export --from "$SOURCE" --to "$CACHE" --compression zstd "$INFO"`},
		},
		check: `
test "$(ls "$CACHE" | grep -c '\.narinfo$')" = "$(wc -l <"$INFO/store-paths")"
cat "$CACHE"/nar/* | wc -c`,
		lines: []line{{name: name, ours: export, theirs: nixCopy, target: 2, sizes: true}},
	}
}

// cacheJob makes a store of a binary cache that Nix has made.
func cacheJob(spec synthetic.Spec) *job {
	const name, restore = "import from that cache", "vm-prebuild import"
	return &job{
		name: name, fs: "ext4", closures: map[string]synthetic.Spec{"source": spec}, info: "source",
		prepare: register + `nix copy --from "$SOURCE" --to "file://$CACHE?compression=zstd" --all`,
		contenders: []contender{
			{name: nixCopy, script: `nix copy --no-check-sigs --from "file://$CACHE" --to "$TARGET" $(cat "$INFO/store-paths")`},
			{name: restore, script: `vm-prebuild import --from "file://$CACHE" --store "$TARGET" --no-check-sigs "$INFO"`},
		},
		check: allValid,
		lines: []line{{name: name, ours: restore, theirs: nixCopy, target: 2.5}},
	}
}

// storeJob copies all of a store into another one.
func storeJob(spec synthetic.Spec) *job {
	const name = "import from another local store"
	return &job{
		name: name, fs: "ext4", closures: map[string]synthetic.Spec{"source": spec}, info: "source",
		prepare: register,
		contenders: []contender{
			{name: nixCopy, script: `nix copy --no-check-sigs --from "$SOURCE" --to "$TARGET" --all`},
			{name: imported, script: importClosure},
		},
		check: allValid,
		lines: []line{{name: name, ours: imported, theirs: nixCopy, target: 4}},
	}
}

// instantiate has Nix make n derivations that depend on each other, some with
// several outputs. The files go to the target, their registration beside it.
func instantiate(n int) string {
	return `
mkdir -p "$LAB/drvs" "$TARGET/nix" "$INFO"
cat >"$LAB/drvs.nix" <<'END'
let
  builder = builtins.toFile "builder.sh" "mkdir $outputs";
  all = builtins.genList drv ` + strconv.Itoa(n) + `;
  drv = i: derivation {
    name = "package-${toString i}-1.0";
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ builder ];
    outputs = [ "out" ] ++ (if i - i / 3 * 3 == 0 then [ "dev" "man" ] else [ ]);
    inputs = map (k: builtins.elemAt all k) (if i == 0 then [ ] else [ (i * 9 / 10) (i / 2) (i / 3) (i / 7) ]);
  };
in
all
END
nix-instantiate --store "$LAB/drvs" "$LAB/drvs.nix" >/dev/null
nix-store --store "$LAB/drvs" --dump-db >"$INFO/registration"
nix path-info --store "$LAB/drvs" --all | sort >"$INFO/store-paths"
mkdir "$TARGET/nix/store"
(cd "$LAB/drvs/nix/store" && cp -a *-* "$TARGET/nix/store")
`
}

// bytes is how much the files in the closures of j have together.
func (j *job) bytes() (n int64) {
	for _, spec := range j.closures {
		n += spec.Bytes
	}
	return n
}

// files is how many files the closures of j have, about.
func (j *job) files() (n int64) {
	for _, spec := range j.closures {
		n += int64(spec.Paths + spec.Files)
	}
	return n
}
