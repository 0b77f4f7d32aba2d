package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"homeroom/test/wire"
)

// refusedAfter expects a command to be refused with 3504, after a warning that says why.
func refusedAfter(c *wire.Client, command, why string) {
	c.T.Helper()
	c.Send(command)
	warning, status := c.Read(), ""
	if strings.HasPrefix(warning, "@mess #warning ") {
		status = c.Read()
	}
	if !strings.Contains(warning, why) || status != "@status 3504" {
		c.T.Errorf("%s: %q, %q; want a warning with %q, and 3504", command, warning, status, why)
	}
}

// freePort returns a port of this machine that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// TestRestartRefused: where the next start would fail, nobody is told to go, and who
// asked is told why; a reload takes no such settings either.
func TestRestartRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	other, program := filepath.Join(t.TempDir(), "data"), buildProgram(t)
	startOn(t, other)
	port := freePort(t)
	with := func(server, rest string) string {
		return strings.Replace(programSettings, `listen = "127.0.0.1:0"`, server, 1) + rest
	}
	good := with(fmt.Sprintf(`listen = "127.0.0.1:%s"`, port), "")
	settings := writeSettings(t, good)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := startProgram(t, program, "-config", settings)
	folder := filepath.Join(filepath.Dir(program), "data")
	host, bob := dialFolder(t, folder), p.Guest("bob")
	for _, c := range []struct{ settings, why string }{
		{with(fmt.Sprintf("listen = %q", taken.Addr()), ""), "address already in use"},
		{with(`listen = "192.0.2.1:6500"`, ""), "cannot assign requested address"},
		{good + "[tls]\nlisten = \"192.0.2.1:0\"\n", "cannot assign requested address"},
		{good + fmt.Sprintf("[tls]\nlisten = %q\n", taken.Addr()), "address already in use"},
		{good + fmt.Sprintf("[tls]\nlisten = \"127.0.0.1:%s\"\n", port), "another setting needs the same port"},
		{good + "[tls]\nlisten = \"127.0.0.1:0\"\ncert = \"/nonexistent.pem\"\nkey = \"/nonexistent.key\"\n", "cannot use the certificate /nonexistent.pem"},
		{good + fmt.Sprintf("[tls]\nlisten = \"127.0.0.1:0\"\ncert = %q\nkey = %q\n", settings, settings), "cannot use the certificate"},
		{strings.Replace(good, `listen = ""`, fmt.Sprintf("listen = %q", taken.Addr()), 1), "address already in use"},
		{with(fmt.Sprintf("listen = \"127.0.0.1:%s\"\nkey = \"/nonexistent\"", port), ""), "the key /nonexistent is missing"},
		{with(fmt.Sprintf("listen = \"127.0.0.1:%s\"\nkey = %q", port, settings), ""), ""},
		{with(fmt.Sprintf("listen = \"127.0.0.1:%s\"\ndata = %q", port, other), ""), "another homeroom, process "},
	} {
		write(c.settings)
		refusedAfter(host, "#restart", c.why)
		refusedAfter(host, "#restart -try", c.why)
		refusedAfter(host, "#reload", c.why)
	}
	write(with(fmt.Sprintf("listen = \"127.0.0.1:%s\"\nkey = \"ask\"", port), ""))
	refusedAfter(host, "#restart", "passphrase")
	write(good)
	key := filepath.Join(folder, keyFile)
	for _, c := range []struct {
		spoil, mend func() error
		why         string
	}{
		{func() error { return os.Rename(key, key+".away") }, func() error { return os.Rename(key+".away", key) }, "is missing"},
		{func() error { return os.Chmod(key, 0o644) }, func() error { return os.Chmod(key, 0o600) }, "can be read by others"},
		{func() error { return os.Rename(program, program+".away") }, func() error { return os.Rename(program+".away", program) }, "no such file"},
		{
			func() error {
				return errors.Join(os.Rename(program, program+".away"), os.WriteFile(program, []byte("half of a program"), 0o755))
			},
			func() error { return os.Rename(program+".away", program) }, "cannot be started",
		},
		{
			func() error {
				return errors.Join(os.Rename(program, program+".away"), os.WriteFile(program, nil, 0o644))
			},
			func() error { return os.Rename(program+".away", program) }, "permission denied",
		},
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		refusedAfter(host, "#restart", c.why)
		if err := c.mend(); err != nil {
			t.Fatal(err)
		}
	}
	bob.Ask("#ping", "@ret #ping")
	write(with(fmt.Sprintf(`listen = ":%s"`, port), ""))
	host.Ask("#restart -try", "@status 0")
	host.Ask("#ping", "@ret #ping")
	host.Ask("#restart", "@status 0")
	bob.Ended(`@mess #warning "the server is starting anew (Host)"`)
	p.Addr = <-p.listening
	p.Guest("bob")
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}
