package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"homeroom/store"
)

// TestConsoleScript: each line shows its answer, and the exit code says whether all
// was done.
func TestConsoleScript(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	bob := ts.Guest("bob")
	for _, test := range []struct {
		lines, want string
		err         error
	}{
		{"HELP", consoleHelp, nil},
		{"help", consoleHelp, nil},
		{"\n  \n", "", nil},
		{"LIST_USERS", "bob (anon) in Home, from 127.0.0.1\n1 logged in\n", nil},
		{"#ping x", "#ping x\n", nil},
		{"#help ping", "#ping [word]\n  sends the word back\n", nil},
		{"#KICK nobody", "#KICK: there is none (-3)\n", errNotDone},
		{"kick nobody", "#kick: there is none (-3)\n", errNotDone},
		{"KICK", "KICK takes a user's name\n", errNotDone},
		{"#nothing\n#ping x", "#nothing: there is no such command (3502)\n#ping x\n", errNotDone},
		{"#reload", "#reload: this server cannot read its settings anew (3504)\n", errNotDone},
		{"#postMessage heading 0 2\n#ping x", "#postMessage: that needs an account, and a room to be in (3501)\n#ping x\n", errNotDone},
		{"#ping x\nEXIT\n#ping y", "#ping x\n", nil},
		{`say "hi" and \`, `everybody was told: say "hi" and \` + "\n", nil},
		{"kick off is at seven", "everybody was told: kick off is at seven\n", nil},
		{"#announce tea", "everybody was told: tea\n", nil},
		{"who", "who looks like a command and is not announced; did you mean #who? #announce who announces it\n", errNotDone},
		{"y", "everybody was told: y\n", nil},
		{"KICK Bob too loud", "", nil},
	} {
		var out bytes.Buffer
		o, err := dialOperator(t.Context(), ts.cfg.Server.Data)
		if err != nil {
			t.Fatal(err)
		}
		err = (&console{asks: o, out: &out, help: consoleHelp}).script(strings.NewReader(test.lines))
		if !errors.Is(err, test.err) || out.String() != test.want {
			t.Errorf("%q shows %q, %v; want %q, %v", test.lines, out.String(), err, test.want, test.err)
		}
		o.close()
	}
	bob.Ended(`@mess #announce Host "say \"hi\" and \\"`, `@mess #announce Host "kick off is at seven"`,
		`@mess #announce Host "tea"`, `@mess #announce Host "y"`, `@mess #warning "you were disconnected by Host: too loud"`)
}

// TestKeyboard: the server's own keyboard takes the console's words, one line at a
// time; control characters are dropped, EXIT stops the server, and nothing after it
// is read.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.Guest("alice")
	alice.Ask("#createroom den", "@status 0")
	alice.Ask("#changeroom den", "@status 0")
	for _, test := range []struct{ lines, want string }{
		{"\r\n   \n  help  \r\n", keyboardHelp},
		{"list_users\nKICK\n", "alice (anon) in den, from 127.0.0.1\n1 logged in\nKICK takes a user's name\n"},
		{"KICK nobody\n#ping x", "#kick: there is none (-3)\n#ping x\n"},
		{"#quit\n#ping x", "#ping x\n"},
		{"\x1b[2Jtea is ready\x07", "everybody was told: [2Jtea is ready\n"},
		{"EXITS", "everybody was told: EXITS\n"},
		{"please EXIT", "everybody was told: please EXIT\n"},
		{"quit\n\n", `quit looks like a command; did you mean EXIT? Is everybody to read "quit"? Type y or n` + "\nnot announced\n"},
		{"ls\nNo\n", `ls looks like a command; HELP shows those that there are. Is everybody to read "ls"? Type y or n` + "\nnot announced\n"},
		{"/q\n#ping x\n", `/q looks like a command; did you mean EXIT? Is everybody to read "/q"? Type y or n` + "\n#ping x\n"},
		{"who\ny\n", `who looks like a command; did you mean #who? Is everybody to read "who"? Type y or n` + "\neverybody was told: who\n"},
	} {
		var out bytes.Buffer
		srv.keyboard(strings.NewReader(test.lines), &out, func() { t.Errorf("%q stops the server", test.lines) })
		if out.String() != test.want {
			t.Errorf("%q shows %q, want %q", test.lines, out.String(), test.want)
		}
	}
	for _, text := range []string{"[2Jtea is ready", "EXITS", "please EXIT", "who"} {
		alice.Expect(`@mess #announce Host "` + text + `"`)
	}
	bob := srv.Guest("Bob")
	srv.keyboard(strings.NewReader("kick bob"), io.Discard, nil)
	bob.Ended(`@mess #warning "you were disconnected by Host"`)
	stops := 0
	srv.keyboard(strings.NewReader("exit\nKICK alice\n"), io.Discard, func() { stops++ })
	if stops != 1 {
		t.Errorf("EXIT stops the server %d times", stops)
	}
	alice.Ask("#ping", "@ret #ping")
}

// TestConsoleServerGone: the end of the server is an error.
func TestConsoleServerGone(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	o, err := dialOperator(t.Context(), ts.cfg.Server.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	ts.stopNow()
	if err := (&console{asks: o, out: new(bytes.Buffer)}).script(strings.NewReader("#ping")); err == nil || errors.Is(err, errNotDone) {
		t.Errorf("got %v", err)
	}
}

// TestConsoleCompletes: commands at the start of a line, names elsewhere.
func TestConsoleCompletes(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	ts.Guest("robert")
	ts.Member("Roberta")
	ts.Member("rolf").Ask("#quit", "@status 0")
	o, err := dialOperator(t.Context(), ts.cfg.Server.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	var out bytes.Buffer
	c := &console{asks: o, out: &out}
	for _, test := range []struct{ line, want, shown string }{
		{"LI", "LIST_USERS ", ""}, {"li", "LIST_USERS ", ""}, {"#li", "#list", ""}, {"#list", "#list", "#listrooms  #listgroups  #listbans\n"},
		{"#roomk", "#roomk", ""}, // not for the operator
		{"zz", "zz", ""}, {"KICK rob", "KICK robert", ""}, {"KICK robert", "KICK robert", "robert  Roberta\n"},
		{"#role rol", "#role rolf ", ""}, {"#role zz", "#role zz", ""},
	} {
		out.Reset()
		line, pos, ok := c.complete(test.line, len(test.line), '\t')
		if !ok || line != test.want || pos != len(test.want) || out.String() != test.shown {
			t.Errorf("%q becomes %q (%d, %v) and shows %q, want %q and %q", test.line, line, pos, ok, out.String(), test.want, test.shown)
		}
	}
	if line, pos, ok := c.complete("KICK ro bye", 7, '\t'); line != "KICK ro bye" && line != "KICK robert bye" || !ok {
		t.Errorf("in the middle: %q, %d, %v", line, pos, ok)
	}
	if _, _, ok := c.complete("LI", 2, 'x'); ok {
		t.Error("another key completes")
	}
}

// commandLine runs a command line of this program in this process.
func commandLine(t *testing.T, ask store.Asker, line ...string) (code int, said string) {
	t.Helper()
	var out bytes.Buffer
	env := environment{ctx: t.Context(), ask: ask, stdout: &out, stderr: &out}
	code = runMain(env, line)
	return code, out.String()
}

// TestAdminAdd: administrators are made on a folder without a server and on a
// running one, and have the rights at once; nothing else of an account changes.
func TestAdminAdd(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	data, settings := cfg.Server.Data, writeSettings(t, programSettings)
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("pass word\r\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := 0
	ask := func(string) (string, error) { asked++; return "typed", nil }
	admin := func(want int, say string, line ...string) {
		t.Helper()
		code, said := commandLine(t, ask, append([]string{"admin", line[0], "-config", settings, "-data", data}, line[1:]...)...)
		if code != want || !strings.Contains(said, say) {
			t.Errorf("admin %q: exit code %d, %q; want %d, %q", line, code, said, want, say)
		}
	}
	admin(exitDone, "root is an administrator now\n", "add", "-password-file", secret, "root")
	admin(exitDone, "root\n", "list")
	admin(exitFailed, "is no name that can be used (-4)", "add", "-password-file", secret, "Host")
	admin(exitFailed, "there is no such account (3001)", "remove", "nobody")
	admin(exitUsage, "usage:", "add")
	admin(exitUsage, "usage:", "crown", "me")
	ts := startWith(t, cfg)
	root := ts.Dial()
	root.Ask(`#login regd root "pass word"`, "@status 0")
	root.Ask("#listbans", "@ret #listbans 0")
	alice := ts.Member("alice")
	admin(exitDone, "alice is an administrator now; the account existed already and keeps its password\n", "add", "alice")
	alice.Ask("#listbans", "@ret #listbans 0")
	admin(exitDone, "alice\nroot\n", "list")
	admin(exitDone, "", "remove", "alice")
	alice.Ask("#listbans", "@status 3506")
	admin(exitDone, "dave is an administrator now\n", "add", "dave", "-password-file", secret)
	admin(exitDone, "", "remove", "dave")
	admin(exitDone, "carol is an administrator now\n", "add", "carol")
	if asked != 2 {
		t.Errorf("it asked %d times, want twice", asked)
	}
	ts.Dial().Ask("#login regd carol typed", "@status 0")
	ts = ts.restart()
	carol := ts.Dial()
	carol.Ask("#login regd carol typed", "@status 0")
	carol.Ask("#listbans", "@ret #listbans 0")
}

// TestAdminTaken: with a password of its own for a new account, a name that somebody
// has taken is refused; the account keeps its role, whatever that is, and its
// password.
func TestAdminTaken(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	settings, secret := writeSettings(t, programSettings), filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("good\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	add := func(want int, line ...string) (said string) {
		t.Helper()
		code, said := commandLine(t, nil, append([]string{"admin", "add", "-config", settings, "-data", ts.cfg.Server.Data}, line...)...)
		if code != want {
			t.Errorf("admin add %q: exit code %d, %q; want %d", line, code, said, want)
		}
		return said
	}
	squatter := ts.Guest("squatter")
	squatter.Ask("#createlogin root bad real mail", "@status 0")
	for range 2 { // while the server runs, and without one
		said := add(exitFailed, "-password-file", secret, "ROOT")
		for _, part := range []string{"making the account ROOT: an account has that name (3004)", "nothing was changed", "without -password-file", "#resetpass"} {
			if !strings.Contains(said, part) {
				t.Errorf("it says %q, want %q", said, part)
			}
		}
		ts.stopNow()
	}
	ts = startWith(t, ts.cfg)
	squatter = ts.Dial()
	squatter.Ask("#login regd root good", "@status 3002")
	squatter.Ask("#login regd root bad", "@status 0")
	squatter.Ask("#listbans", "@status 3506")
	add(exitDone, "root")
	squatter.Ask("#listbans", "@ret #listbans 0")
	add(exitFailed, "-password-file", secret, "root")
	squatter.Ask("#listbans", "@ret #listbans 0")
}

// TestAdminHalfMade: where the account was made and the role could not be stored,
// what to do next is said.
func TestAdminHalfMade(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("good\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		in := bufio.NewReader(far)
		for _, answer := range []string{"@status 0\r\n", "@status -2\r\n"} {
			if _, err := in.ReadString('\n'); err != nil {
				return // the test says what is missing
			}
			_, _ = io.WriteString(far, answer)
		}
	}()
	var out bytes.Buffer
	err := addAdmin(environment{stdout: &out}, newOperator(near), "root", secret)
	if err == nil || !strings.Contains(err.Error(), "do this again without -password-file: changing the role of root") || out.Len() > 0 {
		t.Errorf("got %v, %q", err, out.String())
	}
}

// TestAdminPassword: what is no password is refused, and makes no account.
func TestAdminPassword(t *testing.T) {
	t.Parallel()
	data, settings, empty := t.TempDir(), writeSettings(t, programSettings), filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\nsecret"), 0o600); err != nil {
		t.Fatal(err)
	}
	turns := 0
	differing := func(string) (string, error) { turns++; return fmt.Sprint(turns), nil }
	for _, test := range []struct {
		ask  store.Asker
		file string
		want string
	}{
		{nil, "", "use -password-file FILE"}, {nil, empty, "is empty; it must be the password"},
		{nil, empty + "x", "no such file"}, {differing, "", "the two passwords differ"},
	} {
		code, said := commandLine(t, test.ask, "admin", "add", "-config", settings, "-data", data, "-password-file", test.file, "root")
		if code != exitFailed || !strings.Contains(said, test.want) {
			t.Errorf("exit code %d, %q, want %q", code, said, test.want)
		}
	}
	if code, said := commandLine(t, nil, "admin", "list", "-config", settings, "-data", data); code != exitDone || said != "data folder  "+data+"\n" {
		t.Errorf("exit code %d, %q", code, said)
	}
}

// TestStatsCommand: stats speaks to the running server, and says so where there is
// none.
func TestStatsCommand(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	data, settings := ts.cfg.Server.Data, writeSettings(t, programSettings)
	ts.Guest("alice")
	if code, said := commandLine(t, nil, "stats", "-config", settings, "-data", data); code != exitDone || !strings.Contains(said, "users_online           1\n") {
		t.Errorf("stats: exit code %d, %q", code, said)
	}
	ts.stopNow()
	for _, verb := range []string{"stats", "console"} {
		if code, said := commandLine(t, nil, verb, "-config", settings, "-data", data); code != exitFailed || !strings.Contains(said, "no server runs on that data folder") {
			t.Errorf("%s: exit code %d, %q", verb, code, said)
		}
	}
}
