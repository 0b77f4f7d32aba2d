package main

import (
	"compress/gzip"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"homeroom/certs"
	"homeroom/datadir"
	"homeroom/service"
)

// runStatus says whether a server runs on the data folder (exit code 0; 1: none
// does) and which TLS certificate it shows.
func runStatus(env environment, flags *flag.FlagSet, args []string) int {
	path := flags.String("config", "", "settings `FILE` (default: chat.toml here, else "+service.SettingsFile+", if there is one)")
	data := flags.String("data", "", "the server's data folder, `DIR` (server.data)")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	file := settingsPath(*path, service.SettingsFile)
	cfg, err := settingsFor(file, *data, "")
	var runs bool
	if err == nil {
		runs, err = writeStatus(env.stdout, &cfg)
	}
	if err == nil && file == service.SettingsFile && *data == "" {
		writeService(env, runs)
	}
	if err == nil && !runs {
		return exitFailed
	}
	return report(env, err)
}

// writeService writes how the service is, where the machine has it.
func writeService(env environment, runs bool) {
	if m, err := service.This(env.ctx, env.stdout, env.stderr); err == nil {
		if state := m.State(runs); state != "" {
			fmt.Fprintf(env.stdout, "service      %s\n", state)
		}
	}
}

// writeStatus writes one fact a line.
func writeStatus(w io.Writer, cfg *config) (runs bool, err error) {
	process, err := datadir.User(cfg.Server.Data)
	if err != nil {
		return false, err
	}
	runs = process != ""
	if runs {
		fmt.Fprintf(w, "server       runs, process %s\n", process)
	} else {
		fmt.Fprintf(w, "server       does not run\n")
	}
	fmt.Fprintf(w, "data folder  %s\n", cfg.Server.Data)
	if cfg.TLS.Listen == "" {
		fmt.Fprintf(w, "TLS          off\n")
		return runs, nil
	}
	fmt.Fprintf(w, "TLS          %s\n", cfg.TLS.Listen)
	return runs, writeCertificate(w, cfg)
}

// writeCertificate writes the certificate's fingerprints, for clients to compare.
func writeCertificate(w io.Writer, cfg *config) error {
	pair, path, err := certs.Read(cfg.certificateOptions())
	if err != nil {
		return err
	}
	if pair == nil {
		fmt.Fprintf(w, "certificate  none yet; the server makes one when it starts\n")
		return nil
	}
	leaf := pair.Leaf
	names := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	fmt.Fprintf(w, "certificate  %s, until %s\n", path, leaf.NotAfter.UTC().Format(time.DateOnly))
	fmt.Fprintf(w, "fingerprint  SHA-256 %s\n", certs.Fingerprint(pair))
	fmt.Fprintf(w, "public key   %s\n", certs.Pin(leaf))
	fmt.Fprintf(w, "names        %s\n", strings.Join(names, " "))
	return nil
}

// builtFrom is the commit that a release was built from or, in another build, the
// one that Go has noted, if any.
func builtFrom(info *debug.BuildInfo) string {
	if commit != "" {
		return commit
	}
	noted := buildSetting(info, "vcs.revision")
	if noted == "" {
		return "unknown"
	}
	if buildSetting(info, "vcs.modified") == "true" {
		return noted + ", changed"
	}
	return noted
}

// builtFor is the kind of machine: linux/amd64, or linux/arm 6.
func builtFor(info *debug.BuildInfo) string {
	kind := runtime.GOOS + "/" + runtime.GOARCH
	if arm := buildSetting(info, "GOARM"); arm != "" {
		kind += " " + arm
	}
	return kind
}

// buildSetting is the value of a setting of the build, "" where it is not known.
func buildSetting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func runVersion(env environment, flags *flag.FlagSet, args []string) int {
	if code, done := parse(flags, args, 0); done {
		return code
	}
	fmt.Fprint(env.stdout, versionText())
	return exitDone
}

// versionText is the text of `homeroom version`.
func versionText() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return fmt.Sprintf("homeroom %s, protocol %s\ncommit %s\n%s, %s\n",
		version, protocolVersion, builtFrom(info), runtime.Version(), builtFor(info))
}

// packedLicenses is the licence of Homeroom and of everything that is linked into
// it, compressed because the binary carries it everywhere. TestLicenses makes it.
//
//go:embed docs/licenses.gz
var packedLicenses string

// licensesText unpacks the licences.
func licensesText() (string, error) {
	unpacked, err := gzip.NewReader(strings.NewReader(packedLicenses))
	if err != nil {
		return "", fmt.Errorf("unpacking the licences: %w", err)
	}
	text, err := io.ReadAll(unpacked)
	if err != nil {
		return "", fmt.Errorf("unpacking the licences: %w", err)
	}
	return string(text), nil
}

// runLicenses prints the licences, as those of the parts ask of a program that
// contains them.
func runLicenses(env environment, flags *flag.FlagSet, args []string) int {
	if code, done := parse(flags, args, 0); done {
		return code
	}
	text, err := licensesText()
	if err != nil {
		return report(env, err)
	}
	fmt.Fprint(env.stdout, text)
	return exitDone
}
