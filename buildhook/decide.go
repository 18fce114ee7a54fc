package buildhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vm-prebuild/buildhook/admission"
	"vm-prebuild/buildhook/demand"
	"vm-prebuild/buildhook/derivation"
	"vm-prebuild/buildhook/protocol"
	"vm-prebuild/buildhook/serve"
	"vm-prebuild/nar/storepath"
	"vm-prebuild/storedb/mountns"
	"vm-prebuild/testrun/accel"
)

// Features that make a derivation a test. Containers need the last two.
const (
	featureTest     = "nixos-test"
	featureKVM      = "kvm"
	featureUIDRange = "uid-range"
	featureDevNet   = "devnet"

	featureRecursive = "recursive-nix"
)

// What builders with those features see.
const (
	devKVM = "/dev/kvm"
	devNet = "/dev/net"
)

// decision is an answer to a question, and what is known then.
type decision struct {
	try    protocol.Try
	test   bool   // it is ours, if it can be built
	mine   bool   // it is built here, or its outputs are placed
	reason string // for the log, and of what is not mine for the user

	root       string // of the store that asks
	derivation *derivation.Derivation
	cache      string           // where the outputs are; empty if they must be built
	demand     admission.Demand // if they must be built
	emulated   string           // likewise: why KVM cannot be used, but the test runs; empty if it can

	// Of the Nix that builds, likewise: its program, its configuration, and what it is
	// asked, without the derivation and its inputs.
	nix, config string
	request     serve.Request
}

// decide answers a question. It changes nothing.
func (h *hook) decide(ctx context.Context, try protocol.Try) decision {
	d := decision{try: try}
	if h.Unusable != nil {
		d.reason = h.Unusable.Error()
		return d
	}
	if err := storepath.Check(try.Drv); err != nil {
		d.reason = err.Error() // a store elsewhere
		return d
	}
	if reason, ok := h.isTest(try); ok {
		d.test, d.reason = true, reason
	} else {
		d.reason = "not a test"
		return d
	}
	if err := h.examine(&d); err != nil {
		d.reason = err.Error()
		return d
	}
	cache, problem := h.findResult(ctx, d)
	if problem != "" {
		h.log.note(entry{Drv: try.Drv, Event: "cache not used", Reason: problem})
	}
	if cache != "" {
		d.cache, d.mine = cache, true
		return d
	}
	if err := h.canBuild(ctx, &d); err != nil {
		d.reason = err.Error()
		return d
	}
	d.mine = true
	return d
}

// isTest says whether a derivation is one for us, and why.
func (h *hook) isTest(try protocol.Try) (reason string, ok bool) {
	for _, feature := range append([]string{featureTest, featureKVM, featureUIDRange, featureDevNet}, h.Features...) {
		if slices.Contains(try.Features, feature) {
			return "it needs the feature " + feature, true
		}
	}
	name := strings.TrimSuffix(filepath.Base(try.Drv)[storepath.HashPartLen+1:], ".drv")
	if h.Match != nil && h.Match.MatchString(name) {
		return "its name matches " + h.Match.String(), true
	}
	return "", false
}

// maxDerivation is more than any derivation has, in bytes.
const maxDerivation = 64 << 20

// examine reads the derivation, and fails if it is of a kind that only Nix can
// build in its own store.
func (h *hook) examine(d *decision) error {
	if slices.Contains(d.try.Features, "ca-derivations") {
		return errors.New("its output paths are not known before it is built")
	}
	system := d.try.System
	if system != h.settings["system"] && !slices.Contains(strings.Fields(h.settings["extra-platforms"]), system) {
		return fmt.Errorf("it is for %s", system)
	}
	var err error
	if d.root, err = storeRoot(h.settings["store"]); err != nil {
		return err
	}
	if d.derivation, err = readDerivation(filepath.Join(d.root, d.try.Drv)); err != nil {
		return err
	}
	for name, output := range d.derivation.Outputs {
		if output.HashAlgorithm != "" {
			return errors.New("its output has a fixed hash, and it may use the network")
		}
		if err := storepath.Check(output.Path); err != nil {
			return fmt.Errorf("output %s: %w", name, err)
		}
	}
	return h.checkSandbox(d)
}

func readDerivation(file string) (*derivation.Derivation, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read derivation: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxDerivation) {
		err = errors.New("not a file of a derivation's size")
	}
	var d *derivation.Derivation
	if err == nil {
		var text []byte
		if text, err = io.ReadAll(io.LimitReader(f, maxDerivation)); err == nil {
			d, err = derivation.Parse(text)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read derivation %s: %w", file, err)
	}
	return d, nil
}

// checkSandbox leaves derivations to Nix that it may build without a sandbox: ours
// always has one, and what was built before must not fail.
func (h *hook) checkSandbox(d *decision) error {
	switch h.settings["sandbox"] {
	case "false":
		if h.missingFeature(d.try) == "" {
			return errors.New("this Nix can build it, without a sandbox, and ours has one")
		}
	case "relaxed":
		if d.derivation.Env["__noChroot"] == "1" || strings.Contains(d.derivation.Env["__json"], `"__noChroot":true`) {
			return errors.New("it is to be built without a sandbox")
		}
	}
	return nil
}

// missingFeature is one that Nix itself does not offer; empty if it offers all.
func (h *hook) missingFeature(try protocol.Try) string {
	offered := strings.Fields(h.settings["system-features"])
	for _, feature := range try.Features {
		if !slices.Contains(offered, feature) {
			return feature
		}
	}
	return ""
}

// canBuild finds out whether a test can be built here, and what it needs.
func (h *hook) canBuild(ctx context.Context, d *decision) error {
	if err := makeDirs(h.Dir); err != nil {
		return err
	}
	if err := mountns.Probe(ctx); err != nil {
		return fmt.Errorf("a store to build in cannot be made: %w", err)
	}
	if err := h.offer(ctx, d); err != nil {
		return err
	}
	var err error
	d.demand, err = demand.Of(ctx, d.root, texts(d.derivation))
	if err != nil {
		d.reason += "; what its machines need is not known: " + err.Error()
	}
	if d.demand, err = h.limit.clamp(d.demand); err != nil {
		return err
	}
	return h.prepare(d)
}

// offer fails if the derivation needs a feature that there is not.
func (h *hook) offer(ctx context.Context, d *decision) error {
	for _, feature := range d.try.Features {
		switch feature {
		case featureKVM:
			result := accel.Probe(ctx)
			if result.KVM {
				continue
			}
			if !h.TCG {
				return fmt.Errorf("KVM cannot be used: %s\nhint: --tcg=allow lets QEMU emulate the processor, many times slower", result.Reason)
			}
			d.emulated = result.Reason
		case featureUIDRange:
			if h.settings["auto-allocate-uids"] != "true" {
				return errors.New("the feature uid-range needs Nix's settings auto-allocate-uids and, among the experimental features, cgroups")
			}
		case featureDevNet:
			if _, err := os.Stat(devNet); err != nil {
				return fmt.Errorf("the feature devnet: %w", err)
			}
		case featureRecursive:
			return errors.New("it uses the store in which it is built, and that would be another one here")
		case featureTest:
		default:
			if !slices.Contains(h.Features, feature) && !slices.Contains(strings.Fields(h.settings["system-features"]), feature) {
				return fmt.Errorf("it needs the feature %s, too\nhint: --feature %s offers it", feature, feature)
			}
		}
	}
	return nil
}

// texts are those parts of a derivation in which store paths can be.
func texts(d *derivation.Derivation) []string {
	return slices.Concat([]string{d.Builder}, d.Args, slices.Collect(maps.Values(d.Env)))
}

// storeRoot is the root of the store that a value of Nix's setting store means.
func storeRoot(setting string) (string, error) {
	unknown := fmt.Errorf("Nix's setting store is %q, and only local stores with their state in the usual place are known", setting) //nolint:revive,staticcheck // a name
	place, parameters, _ := strings.Cut(setting, "?")
	values, err := url.ParseQuery(parameters)
	if err != nil {
		return "", unknown
	}
	root := values.Get("root")
	values.Del("root")
	if len(values) > 0 {
		return "", unknown
	}
	switch {
	case place == "", place == "auto", place == "daemon", place == "local":
	case root == "" && filepath.IsAbs(place):
		root = place
	case root == "" && strings.HasPrefix(place, "local:///"):
		root = strings.TrimPrefix(place, "local://")
	default:
		return "", unknown
	}
	if root == "" {
		for name, usual := range map[string]string{"NIX_STORE_DIR": storepath.Dir, "NIX_STATE_DIR": "/nix/var/nix"} {
			if value := os.Getenv(name); value != "" && value != usual {
				return "", fmt.Errorf("%s is %s", name, value)
			}
		}
		root = "/"
	}
	if !filepath.IsAbs(root) {
		return "", unknown
	}
	return filepath.Clean(root), nil
}
