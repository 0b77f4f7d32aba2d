package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"homeroom/test/wire"
)

// buildProgram builds the program as it is shipped and returns where it is.
func buildProgram(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "homeroom")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	return path
}

// programSettings is a settings file for a program that tests drive as hard as
// they can.
const programSettings = `
[server]
listen = "127.0.0.1:0"
[limits]
connections_per_ip = 0
waiting = 0
waiting_per_ip = 0
commands_per_second = 0
logins_per_minute = 0
rooms = 0
groups = 0
messages = 0
[expiry]
room = "8760h"
[auth]
iterations = 16
[web]
listen = ""
`

// writeSettings writes a settings file and returns where it is.
func writeSettings(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chat.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// program is the program running as a process of its own.
type program struct {
	wire.Target
	cmd       *exec.Cmd
	listening chan string   // gets the first address that its log tells to connect to
	ended     chan struct{} // closed when it has ended, and all that it logged is here
	mu        sync.Mutex
	log       bytes.Buffer
}

// launch starts the program without waiting for anything.
func launch(t testing.TB, path string, args ...string) *program {
	t.Helper()
	p := &program{Target: wire.Target{T: t}, cmd: exec.Command(path, args...), listening: make(chan string, 1), ended: make(chan struct{})}
	p.cmd.Dir = filepath.Dir(path)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting the program: %v", err)
	}
	go p.follow(stderr)
	t.Cleanup(p.kill)
	return p
}

var connectText = regexp.MustCompile(`telnet (\S+) (\d+)`)

// follow keeps what the program logs, until it ends.
func (p *program) follow(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		p.mu.Lock()
		p.log.WriteString(lines.Text() + "\n")
		p.mu.Unlock()
		if m := connectText.FindStringSubmatch(lines.Text()); m != nil {
			p.listening <- net.JoinHostPort(m[1], m[2])
		}
	}
	_ = p.cmd.Wait() // the exit code is in ProcessState
	close(p.ended)
}

// startProgram starts a server and waits until it listens.
func startProgram(t testing.TB, path string, args ...string) *program {
	t.Helper()
	p := launch(t, path, args...)
	select {
	case p.Addr = <-p.listening:
	case <-p.ended:
		t.Fatalf("the program ended at once, with:\n%s", p.logged())
	case <-time.After(wire.Patience):
		t.Fatalf("the program does not listen; it says:\n%s", p.logged())
	}
	return p
}

// logged is what the program has logged so far.
func (p *program) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// kill ends the program as a power cut would, as far as it can tell.
func (p *program) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.ended
}

// exitCode waits for the end and returns the exit code, -1 after a signal.
func (p *program) exitCode() int {
	p.T.Helper()
	select {
	case <-p.ended:
	case <-time.After(wire.Patience):
		p.T.Fatalf("the program does not end; it says:\n%s", p.logged())
	}
	return p.cmd.ProcessState.ExitCode()
}

// terminate asks the program to stop and returns its exit code.
func (p *program) terminate() int {
	p.T.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.T.Fatalf("signalling the program: %v", err)
	}
	return p.exitCode()
}

// refusal runs a program that must not start: it returns the one line that says
// why.
func refusal(t testing.TB, path string, args ...string) string {
	t.Helper()
	p := launch(t, path, args...)
	if code := p.exitCode(); code != exitFailed {
		t.Errorf("%v: exit code %d, want %d", args, code, exitFailed)
	}
	line, ok := strings.CutSuffix(p.logged(), "\n")
	if !ok || strings.Contains(line, "\n") || !strings.HasPrefix(line, "homeroom: ") {
		t.Errorf("%v: want one line that starts with the program's name, got:\n%s", args, p.logged())
	}
	return line
}

// runLine runs a command line in this process. It must not be one that serves.
func runLine(args ...string) (code int, stdout, stderr string) {
	var out, complaint bytes.Buffer
	code = runMain(environment{ctx: context.Background(), stdout: &out, stderr: &complaint}, args)
	return code, out.String(), complaint.String()
}

func TestCommands(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args           string
		code           int
		stdout, stderr string // what each holds; "": nothing at all
	}{
		{"version", exitDone, "homeroom " + version + ", protocol 0.03\ncommit ", ""},
		{"version -h", exitDone, "", "print the version"},
		{"version now", exitUsage, "", "too many arguments: now"},
		{"version -loud", exitUsage, "", "-loud"},
		{"config", exitDone, sampleConfig, ""},
		{"config more", exitUsage, "", "too many arguments: more"},
		{"config -h", exitDone, "", "print the settings file"},
		{"help", exitDone, "usage: homeroom COMMAND", ""},
		{"-help", exitDone, "usage: homeroom COMMAND", ""},
		{"--help", exitDone, "usage: homeroom COMMAND", ""},
		{"serve -h", exitDone, "", "-config FILE"},
		{"-h", exitDone, "", "-data DIR"},
		{"serve -no-such-flag", exitUsage, "", "-no-such-flag"},
		{"serve here", exitUsage, "", "too many arguments: here"},
		{"serv", exitUsage, "", `there is no command "serv"; did you mean "serve"?`},
		{"verison", exitUsage, "", `did you mean "version"?`},
		{"confg", exitUsage, "", `did you mean "config"?`},
		{"hlep", exitUsage, "", `did you mean "help"?`},
	}
	for _, test := range tests {
		code, stdout, stderr := runLine(strings.Fields(test.args)...)
		if code != test.code {
			t.Errorf("%q: exit code %d, want %d", test.args, code, test.code)
		}
		for _, stream := range []struct{ name, got, want string }{{"stdout", stdout, test.stdout}, {"stderr", stderr, test.stderr}} {
			if stream.want == "" && stream.got != "" || !strings.Contains(stream.got, stream.want) {
				t.Errorf("%q: %s is %q, want %q in it", test.args, stream.name, stream.got, stream.want)
			}
		}
	}
}

// TestParse: flags stand before a command's arguments or behind them; after -- all
// are arguments.
func TestParse(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"-n 5 one two": "5 one two", "one -n 5 two": "5 one two", "one two -n 5": "5 one two", "one": "0 one", "": "0 ",
		"-n 5 -- -n 6": "5 -n 6", "one -- -n": "0 one -n", "one two three": "too many", "one -n": "needs an argument", "one -m": "not defined",
	} {
		var out strings.Builder
		flags := flag.NewFlagSet("test", flag.ContinueOnError)
		flags.SetOutput(&out)
		n := flags.Int("n", 0, "")
		code, done := parse(flags, strings.Fields(line), 2)
		if !done {
			fmt.Fprintf(&out, "%d %s", *n, strings.Join(flags.Args(), " "))
		}
		if !strings.Contains(out.String(), want) || done != (code == exitUsage) {
			t.Errorf("%q: exit code %d, %v, %q; want %q", line, code, done, out.String(), want)
		}
	}
}

// TestHelpShowsAll: every command stands in the help, and each explains itself.
func TestHelpShowsAll(t *testing.T) {
	t.Parallel()
	_, all, _ := runLine("help")
	for _, c := range subcommands() {
		if !strings.Contains(all, "  "+c.name+" ") || !strings.Contains(all, c.help) {
			t.Errorf("help does not show %s", c.name)
		}
		if c.name == "help" {
			continue
		}
		if code, _, own := runLine(c.name, "-h"); code != exitDone || !strings.Contains(own, c.help) {
			t.Errorf("%s -h: exit code %d, text %q", c.name, code, own)
		}
	}
}

func TestEditDistance(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"serve", "serve", 0}, {"serv", "serve", 1}, {"sreve", "serve", 2}, {"kitten", "sitting", 3}} {
		if got := editDistance(test.a, test.b); got != test.want {
			t.Errorf("from %q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestListeningText(t *testing.T) {
	t.Parallel()
	fixed := listeningText(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6500})
	if want := "listening on 127.0.0.1:6500; to connect: telnet 127.0.0.1 6500"; fixed != want {
		t.Errorf("got %q, want %q", fixed, want)
	}
	all := listeningText(&net.TCPAddr{IP: net.IPv6zero, Port: 6500})
	if m := connectText.FindStringSubmatch(all); m == nil || net.ParseIP(m[1]).IsUnspecified() || m[2] != "6500" {
		t.Errorf("on all addresses: %q names none to connect to", all)
	}
	if got := listeningText(&net.UnixAddr{Name: "sock", Net: "unix"}); got != "listening on sock" {
		t.Errorf("got %q", got)
	}
}

// TestServe: flags win over the file, the listening line comes, a stop is clean,
// and nothing is written outside the data folder.
func TestServe(t *testing.T) {
	t.Parallel()
	path, data := buildProgram(t), t.TempDir()
	settings := writeSettings(t, "[server]\nname = \"Annex\"\nlisten = \"127.0.0.1:1\"\ndata = \"elsewhere\"\n")
	p := startProgram(t, path, "-config", settings, "-data", data, "-listen", "127.0.0.1:0")
	c := p.Connect()
	c.Expect(`@mess #hello "Annex" "type #help for help"`)
	c.Ask("#ping", "@ret #ping")
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d after SIGTERM, want %d; log:\n%s", code, exitDone, p.logged())
	}
	c.Ended(`@mess #warning "the server is stopping"`)
	if _, err := os.Stat(filepath.Join(data, databaseFile)); err != nil {
		t.Errorf("no database in the folder that -data names: %v", err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "elsewhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of the settings file was made in spite of -data (%v)", err)
	}
	if !strings.Contains(p.logged(), "stopped") {
		t.Errorf("the log does not say that it stopped:\n%s", p.logged())
	}
}

// TestServeInterrupted: SIGINT stops as SIGTERM does, and what is stored is
// nobody else's to read.
func TestServeInterrupted(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "new", "folder")
	p := startProgram(t, buildProgram(t), "serve", "-config", writeSettings(t, programSettings), "-data", data)
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := p.exitCode(); code != exitDone {
		t.Errorf("exit code %d after SIGINT, want %d", code, exitDone)
	}
	files, err := filepath.Glob(filepath.Join(data, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the data folder has no files (%v)", err)
	}
	for _, path := range append(files, data) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", path, info.Mode())
		}
	}
}

func TestServeRefuses(t *testing.T) {
	t.Parallel()
	path, settings := buildProgram(t), writeSettings(t, programSettings)
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, []byte("no folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, databaseFile), []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no settings file", []string{"-config", plain + "-not-there"}, "cannot read the settings"},
		{"a folder as settings", []string{"-config", t.TempDir()}, "cannot read the settings"},
		{"bad settings", []string{"-config", writeSettings(t, "[server]\nport = 1\n")}, "chat.toml, line 2: there is no setting server.port"},
		{"a file as folder", []string{"-config", settings, "-data", plain}, "cannot make the data folder"},
		{"a folder in a file", []string{"-config", settings, "-data", filepath.Join(plain, "data")}, "cannot make the data folder"},
		{"a damaged database", []string{"-config", settings, "-data", damaged}, "is damaged"},
		{"bad address", []string{"-config", settings, "-data", t.TempDir(), "-listen", "6500"}, "server.listen must be an address and a port"},
		{"an address of somebody else", []string{"-config", settings, "-data", t.TempDir(), "-listen", "192.0.2.1:6500"}, "cannot listen on 192.0.2.1:6500"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if why := refusal(t, path, test.args...); !strings.Contains(why, test.want) {
				t.Errorf("got %q, want %q in it", why, test.want)
			}
		})
	}
}

// TestServePortInUse: the second server says so, and gives its folder back.
func TestServePortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path, settings, data := buildProgram(t), writeSettings(t, programSettings), t.TempDir()
	why := refusal(t, path, "-config", settings, "-data", data, "-listen", l.Addr().String())
	if !strings.Contains(why, "cannot listen on "+l.Addr().String()) || !strings.Contains(why, "in use") {
		t.Errorf("got %q", why)
	}
	startProgram(t, path, "-config", settings, "-data", data)
}

// TestServeLocked: a second process on the same folder names the first one.
func TestServeLocked(t *testing.T) {
	t.Parallel()
	path, settings, data := buildProgram(t), writeSettings(t, programSettings), t.TempDir()
	first := startProgram(t, path, "-config", settings, "-data", data)
	guest := first.Guest("early")
	why := refusal(t, path, "-config", settings, "-data", data)
	if want := "process " + strconv.Itoa(first.cmd.Process.Pid) + ","; !strings.Contains(why, want) || !strings.Contains(why, data) {
		t.Errorf("got %q, want %q and the folder in it", why, want)
	}
	guest.Ask("#ping", "@ret #ping")
	first.kill()
	startProgram(t, path, "-config", settings, "-data", data).Guest("late").Ask("#ping", "@ret #ping")
}

// TestEndingOutcome: what went wrong at a stop is returned, or in the log where the
// program starts anew and returns to nobody.
func TestEndingOutcome(t *testing.T) {
	captured := captureLog(t)
	wrong := errors.New("the last changes")
	for _, test := range []struct {
		why, stopped error
		want         []error
		says         string
	}{
		{nil, nil, nil, "msg=stopped"},
		{nil, wrong, []error{wrong}, ""},
		{errRestart, nil, []error{errRestart}, "msg=stopped"},
		{errRestart, wrong, []error{errRestart, wrong}, `went wrong at its stop" error="the last changes"`},
		{errReported, wrong, []error{errReported}, ""},
	} {
		old := len(captured.String())
		err := ending{err: test.why}.outcome(test.stopped)
		for _, want := range test.want {
			if !errors.Is(err, want) {
				t.Errorf("%v, %v: got %v, want %v in it", test.why, test.stopped, err, want)
			}
		}
		if said := captured.String()[old:]; (test.want == nil) != (err == nil) || (test.says == "") != (said == "") || !strings.Contains(said, test.says) {
			t.Errorf("%v, %v: got %v, and the log says %q, want %q", test.why, test.stopped, err, said, test.says)
		}
	}
}
