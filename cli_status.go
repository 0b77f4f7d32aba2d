package main

import (
	"cmp"
	"compress/gzip"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"homeroom/certs"
	"homeroom/datadir"
	"homeroom/service"
	"homeroom/store"
)

// runStatus says how the server is: exit code 0 if it runs, 1 if it does not.
func runStatus(env environment, flags *flag.FlagSet, args []string) int {
	find := folderFlags(flags, needsServer)
	if code, done := parse(flags, args, 0); done {
		return code
	}
	t, err := find()
	if err != nil {
		return report(env, err)
	}
	runs, err := writeStatus(env, &t)
	if err == nil && t.service {
		err = datadir.Named(t.file, func() error { writeService(env, runs); return nil })
	}
	if err == nil && !runs {
		return exitFailed
	}
	return t.report(env, err)
}

// writeService writes how the service is, where the machine has it.
func writeService(env environment, runs bool) {
	if m, err := service.This(env.ctx, env.stdout, env.stderr); err == nil {
		if state := m.State(runs); state != "" {
			fmt.Fprintf(env.stdout, "service      %s\n", state)
		}
	}
}

// writeStatus writes one fact a line. Of a server that runs nothing is an error.
func writeStatus(env environment, t *target) (runs bool, err error) {
	w, cfg := env.stdout, &t.cfg
	process, err := datadir.User(t.folder())
	if err != nil {
		return false, err
	}
	if runs = process != ""; !runs && t.fault != nil {
		return false, t.fault
	}
	if runs {
		fmt.Fprintf(w, "server       runs, process %s\n", process)
	} else {
		fmt.Fprintf(w, "server       does not run\n")
	}
	t.sayFolder(w)
	if t.fault != nil {
		fmt.Fprintf(w, "settings     faulty: %s; the server goes on with those that it has\n", oneLine(t.fault))
	} else {
		fmt.Fprintf(w, "settings     %s\n", cmp.Or(t.file, "the defaults"))
	}
	secure := cfg.TLS.Listen
	if runs {
		if at, answers := writeRunning(env, t); answers && at == "" {
			secure = "" // the settings say so, but it was not started with them
		} else {
			secure = cmp.Or(secure, at)
		}
	}
	fmt.Fprintf(w, "last backup  %s\n", lastBackup(store.LastBackup(t.folder())))
	if secure == "" {
		fmt.Fprintf(w, "TLS          off\n")
		return runs, nil
	}
	fmt.Fprintf(w, "TLS          %s\n", secure)
	if err = writeCertificate(w, cfg, runs); runs && err != nil {
		fmt.Fprintf(w, "certificate  %s\n", oneLine(err))
		err = nil
	}
	return runs, err
}

// writeRunning writes what the running server says of itself, and returns where it
// listens with TLS. answers is false where it says nothing.
func writeRunning(env environment, t *target) (secure string, answers bool) {
	w, says := env.stdout, map[string]string{}
	o, err := dialOperator(env.ctx, t.folder())
	if err == nil {
		defer o.close()
		var a answer
		a, err = o.ask("#stats")
		for _, line := range a.lines {
			key, value, _ := strings.Cut(line, " ")
			says[key] = value
		}
	}
	if err != nil {
		fmt.Fprintf(w, "answer       none: %s\n", oneLine(err))
		return "", false
	}
	var ports []string
	for _, p := range [][2]string{{"listen", "telnet"}, {"tls_listen", "TLS"}, {"web_listen", "web page"}} {
		if _, port, err := net.SplitHostPort(says[p[0]]); err == nil {
			ports = append(ports, port+" ("+p[1]+")")
		}
	}
	fmt.Fprintf(w, "version      %s\n", says["version"])
	fmt.Fprintf(w, "ports        %s\n", strings.Join(ports, ", "))
	if at := says["listen"]; at != "" {
		fmt.Fprintf(w, "connect      %s\n", strings.Join(waysIn(at, telnetTo), " or "))
	}
	if at := says["web_listen"]; at != "" {
		fmt.Fprintf(w, "page         %s\n", strings.Join(waysIn(at, pageAt), " or "))
	}
	fmt.Fprintf(w, "users on     %s\n", says["users_online"])
	return says["tls_listen"], true
}

// lastBackup is when the last backup was made, by this machine's own time.
func lastBackup(at int64) string {
	if at == 0 {
		return "never"
	}
	return time.Unix(at, 0).Format("2006-01-02 15:04:05 MST")
}

// writeCertificate writes the certificate's fingerprints, for clients to compare.
func writeCertificate(w io.Writer, cfg *config, runs bool) error {
	pair, path, err := certs.Read(cfg.certificateOptions())
	if err != nil {
		return err
	}
	if pair == nil && runs {
		fmt.Fprintf(w, "certificate  in a file that the settings of the server name; they were not read (-config FILE)\n")
		return nil
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
