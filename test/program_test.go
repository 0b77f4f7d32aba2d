package test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"homeroom/test/wire"
)

// long has the tests run that take long: the gate does, and whoever changes what
// they test.
var long = flag.Bool("long", false, "run the tests that take long, too")

// onlyLong skips a test that takes long, unless -long is given, or another flag of
// this folder, which says how long.
func onlyLong(t testing.TB) {
	t.Helper()
	asked := *long
	flag.Visit(func(f *flag.Flag) { asked = asked || !strings.HasPrefix(f.Name, "test.") })
	if !asked {
		t.Skip("only with -long")
	}
}

// What the program promises to whoever runs it: exit codes, and the names of the
// files in its data folder.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRestart = 3

	databaseFile = "homeroom.db"
	keyFile      = "homeroom.key"
	logName      = "homeroom.log"
	controlFile  = "control.sock"
)

// built is the program, built once as it is shipped, in a folder that TestMain
// removes. Where GOCOVERDIR names a folder, it counts there which of its statements
// run (CONTRIBUTING.md).
var built = sync.OnceValues(func() (path string, err error) {
	if buildFolder, err = os.MkdirTemp("", "homeroom-test-"); err != nil {
		return "", err
	}
	path = filepath.Join(buildFolder, "homeroom")
	line := []string{"build", "-o", path}
	if os.Getenv("GOCOVERDIR") != "" {
		line = append(line, "-cover", "-coverpkg", "homeroom/...")
	}
	if out, err := exec.Command("go", append(line, "homeroom")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// buildFolder is where built puts the program; "": nothing was built.
var buildFolder string

func TestMain(m *testing.M) {
	code := m.Run()
	if buildFolder != "" {
		_ = os.RemoveAll(buildFolder) // in the system's folder for what may go at any time
	}
	os.Exit(code)
}

// buildProgram returns where the program is, in a folder of its own.
func buildProgram(t testing.TB) string {
	t.Helper()
	made, err := built()
	if err != nil {
		t.Fatalf("building the program: %v", err)
	}
	path := filepath.Join(t.TempDir(), "homeroom")
	if err := os.Link(made, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a command line of the program that ends by itself.
func run(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, complaint bytes.Buffer
	cmd := exec.Command(buildProgram(t), args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), complaint.String()
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
guesses_per_account = 0
hashes_per_minute = 0
rooms = 0
groups = 0
messages = 0
[expiry]
room = "8760h"
[auth]
password_min = 0
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

// loggedLine waits until the program has logged something.
func (p *program) loggedLine(text string) {
	p.T.Helper()
	for end := time.Now().Add(wire.Patience); !strings.Contains(p.logged(), text); runtime.Gosched() {
		if time.Now().After(end) {
			p.T.Fatalf("it does not log %q, but\n%s", text, p.logged())
		}
	}
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

// startShell starts the program from a shell that sets its limits first.
func startShell(t testing.TB, limits, program string, args ...string) *program {
	t.Helper()
	line := append([]string{"-c", limits + ` && exec "$0" "$@"`, program}, args...)
	return startProgram(t, "/bin/sh", line...)
}
