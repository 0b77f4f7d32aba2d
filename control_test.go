package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"homeroom/test/wire"
)

// TestControlSocket: who opens the socket is the operator, whom nobody sees and
// no limit counts.
func TestControlSocket(t *testing.T) {
	t.Parallel()
	ts := startServer(t, func(c *config) {
		c.Limits.Connections, c.Limits.Waiting = 1, 1
		c.Limits.CommandsPerSecond, c.Limits.CommandBurst = 1, 2
	})
	info, err := os.Stat(filepath.Join(ts.cfg.Server.Data, controlFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the control socket: %v, %v; want mode 0600", info, err)
	}
	hosts := []*wire.Client{ts.dialHost(), ts.dialHost(), ts.dialHost()}
	alice := ts.Guest("alice")
	for _, h := range hosts {
		h.Ask("#whoami", "@ret #whoami Host - 0 - 0")
		h.Ask("#ping", "@ret #ping")
		h.Ask("#ping", "@ret #ping")
		h.Ask("#listrooms", "@ret #listrooms 1", "Home - 1 0 pub anon")
	}
	alice.Ask("#listusers", "@ret #listusers 1", "alice anon")
	alice.Ask("#sendto Host hello", "@status 3505")
	hosts[0].Ask("#quit", "@status 0")
	hosts[0].Ended()
	ts.stopNow()
	hosts[1].Ended(`@mess #warning "the server is stopping"`)
	if _, err := os.Lstat(filepath.Join(ts.cfg.Server.Data, controlFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the stop the control socket is still there (%v)", err)
	}
}

// TestHostHasNoRoom: the operator is refused what needs a room or an account.
func TestHostHasNoRoom(t *testing.T) {
	t.Parallel()
	host := startServer(t).dialHost()
	args := map[string]string{"#postmessage": " heading"}
	for _, c := range commandRows() {
		if c.host || c.who == forAdmins {
			continue
		}
		host.Ask(c.name+" a b c"+args[c.name], "@status 3501")
	}
}

// TestStaleControlSocket: what a killed server left does not stop the next one.
func TestStaleControlSocket(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(cfg.Server.Data, controlFile), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	startWith(t, cfg).dialHost().Ask("#ping again", "@ret #ping again")
}

// TestLongFolder: the folder's path may be longer than a socket's.
func TestLongFolder(t *testing.T) {
	t.Parallel()
	ts := startServer(t, func(c *config) { c.Server.Data = filepath.Join(c.Server.Data, strings.Repeat("long", 40)) })
	ts.dialHost().Ask("#ping", "@ret #ping")
	o, err := dialOperator(context.Background(), ts.cfg.Server.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	if a, err := o.ask("#ping far"); err != nil || a.head != "@ret #ping far" {
		t.Errorf("got %+v, %v", a, err)
	}
}

// TestOperator: a program asks the server and gets whole answers.
func TestOperator(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	o, err := dialOperator(context.Background(), ts.cfg.Server.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	if _, err := o.ask("#ping"); err != nil {
		t.Fatal(err)
	}
	ts.announce(messFrame("announce", "ann", "tea"))
	for _, test := range []struct {
		line string
		want answer
	}{
		{"#ping one", answer{head: "@ret #ping one"}},
		{"#listrooms", answer{head: "@ret #listrooms 1", lines: []string{"Home - 0 0 pub anon"}}},
		{"#help ping", answer{head: "@ret #help 2", lines: []string{"#ping [word]", "  sends the word back"}}},
		{"#archstatus", answer{head: "@ret #archstatus"}},
		{"#broadcast hello", answer{status: statusNoGuests}},
		{"#nothing", answer{status: statusNoCommand}},
		{"#reload", answer{status: statusBadArgs, why: errNoReload.Error()}},
		{"#nothing", answer{status: statusNoCommand}},
		{"#createlogin ann pw Ann ann@example.org", answer{}},
	} {
		got, err := o.ask(test.line)
		if test.line == "#archstatus" {
			got.head, _, _ = strings.Cut(got.head, "atus ")
			got.head += "atus"
		}
		if err != nil || got.status != test.want.status || got.why != test.want.why || got.head != test.want.head || !slices.Equal(got.lines, test.want.lines) {
			t.Errorf("%s: got %+v, %v; want %+v", test.line, got, err, test.want)
		}
	}
	for _, line := range []string{"", "#ping\r\n#ping", " "} {
		if _, err := o.ask(line); err == nil {
			t.Errorf("%q was sent", line)
		}
	}
	ts.stopNow()
	if a, err := o.ask("#ping late"); err == nil {
		t.Errorf("a stopped server answered %+v", a)
	}
}

// TestNoServer: the error says that no server runs.
func TestNoServer(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for _, folder := range []string{folder, filepath.Join(folder, "none"), filepath.Join(folder, strings.Repeat("none", 40))} {
		if _, err := dialOperator(context.Background(), folder); !errors.Is(err, errNoServer) {
			t.Errorf("%s: %v, want errNoServer", folder, err)
		}
	}
}
