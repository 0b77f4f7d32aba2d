package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"homeroom/test/wire"
)

// telnet is the real telnet program, with pipes for keyboard and screen.
type telnet struct {
	t     *testing.T
	cmd   *exec.Cmd
	keys  io.WriteCloser
	lines chan string
}

// startTelnet connects with the telnet program.
func startTelnet(t *testing.T, addr string) *telnet {
	t.Helper()
	path, err := exec.LookPath("telnet")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("this machine has no telnet program, and must have")
		}
		t.Skip("this machine has no telnet program")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &telnet{t: t, cmd: exec.Command(path, host, port), lines: make(chan string, 1000)}
	if c.keys, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	screen, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(c.lines)
		for lines := bufio.NewScanner(screen); lines.Scan(); {
			c.lines <- strings.TrimRight(lines.Text(), "\r")
		}
		_ = c.cmd.Wait() // telnet's exit code says how the connection ended, in its own way
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // it may have ended already
		<-ended
	})
	return c
}

var timeOfDay = regexp.MustCompile(`^[012]\d:[0-5]\d `)

// typeIn types a line and the enter key.
func (c *telnet) typeIn(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.keys, line+"\n"); err != nil {
		c.t.Fatalf("typing %q: %v", line, err)
	}
}

// shows waits until these lines stand on the screen, others between them. "hh:mm" is
// whatever time of day a line begins with.
func (c *telnet) shows(want ...string) {
	c.t.Helper()
	var seen []string
	timeout := time.After(wire.Patience)
	for _, w := range want {
		for line := ""; line != w; seen = append(seen, line) {
			var open bool
			select {
			case line, open = <-c.lines:
				if !open {
					c.t.Fatalf("telnet ended after %q, without %q", seen, w)
				}
				line = timeOfDay.ReplaceAllString(line, "hh:mm ")
			case <-timeout:
				c.t.Fatalf("telnet shows %q, not %q", seen, w)
			}
		}
	}
}

// TestTelnet: two people with the telnet program and a third one with another
// talk to each other.
func TestTelnet(t *testing.T) {
	t.Parallel()
	p := startProgram(t, buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
	alice, bob := startTelnet(t, p.Addr), startTelnet(t, p.Addr)
	hello := `@mess #hello "Homeroom" "type your name and press Enter; programs: #help"`
	alice.shows(hello)
	bob.shows(hello)
	alice.typeIn("#login anon alice")
	alice.shows("@status 0")
	bob.typeIn("#login anon bob")
	bob.shows("@status 0")
	program := p.Guest("program")
	alice.typeIn("#broadcast hello from telnet")
	alice.shows(`@mess #broadcast alice "hello from telnet"`, "@status 0")
	bob.shows(`@mess #broadcast alice "hello from telnet"`)
	program.Expect(`@mess #broadcast alice "hello from telnet"`)
	program.Ask(`#sendto bob "grüße \"aus\" 日本"`, "@status 0")
	bob.shows(`@mess #sendto program "grüße \"aus\" 日本"`)
	bob.typeIn(`#creategroup talk "" anon`)
	bob.shows("@status 0")
	bob.typeIn("#joingroup talk")
	bob.shows("@status 0")
	bob.typeIn("#postmessage hello 0 2")
	bob.typeIn("  first part")
	bob.typeIn("#second part")
	bob.shows("@status 0")
	bob.typeIn("#getmessage 1")
	bob.shows("@ret #getmessage hello 2 1 0 0 2592000", "  first part", "#second part")
	alice.typeIn("#events on")
	alice.shows("@status 0")
	bob.typeIn("#quit")
	bob.shows("@status 0")
	alice.shows("@mess #left Home bob")
	alice.typeIn("#listusers")
	alice.shows("@ret #listusers 2", "alice anon", "program anon")
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	alice.shows(`@mess #warning "the server is stopping"`)
	for range alice.lines { // telnet ends when the server does
	}
}

// TestTelnetPeople: two people with the telnet program type a name and a sentence, and
// read each other.
func TestTelnetPeople(t *testing.T) {
	t.Parallel()
	p := startProgram(t, buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
	ana := startTelnet(t, p.Addr)
	ana.typeIn("ana")
	ana.shows("Hello ana. You are in Home; nobody else is.")
	bo := startTelnet(t, p.Addr)
	bo.typeIn("bo")
	bo.shows("Hello bo. You are in Home with ana.")
	ana.shows("* bo came in")
	bo.typeIn(`who's for "lunch"?`)
	ana.shows(`hh:mm bo: who's for "lunch"?`)
	bo.shows(`hh:mm bo: who's for "lunch"?`)
	ana.typeIn("at 12:30, canteen")
	ana.shows("hh:mm ana: at 12:30, canteen")
	bo.shows("hh:mm ana: at 12:30, canteen")
	bo.typeIn("/who")
	bo.shows("  ana, a guest", "  bo, a guest")
	bo.typeIn("/quit")
	bo.shows("Goodbye.")
	for range bo.lines { // telnet ends with the connection
	}
	ana.shows("* bo left")
}

// TestTelnetInterrupt: whoever presses Ctrl-C in the telnet program, twice, still sees
// what others say and loses nothing of what is typed next: the program asks for marks
// in the stream, one of them as urgent data, and shows nothing until it is answered.
func TestTelnetInterrupt(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("telnet")
	if err != nil {
		t.Skip("this machine has no telnet program")
	}
	p := startProgram(t, buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
	bo := p.Guest("bo")
	host, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	near, far := openTerminal(t)
	cmd := exec.Command(path, host, port)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = far, far, far
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // Ctrl-C is a signal of its terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	far.Close()
	watchdog := time.AfterFunc(wire.Patience, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	ana := &screenReader{t: t, terminal: near}
	ana.until("@mess #hello")
	ana.keys("ana\r")
	ana.until("Hello ana.")
	for i := range 3 {
		ana.keys("\x03\x03")
		text := fmt.Sprint("after Ctrl-C ", i)
		ana.keys(text + "\r")
		for want := `@mess #broadcast ana "` + text + `"`; ; { // what was half typed may go with the keys
			if got := bo.Read(); got == want {
				break
			} else if !strings.HasPrefix(got, "@mess #entered") {
				t.Fatalf("bo hears %q, want %q", got, want)
			}
		}
		ana.until(" ana: " + text)
		bo.Ask("#broadcast you too", `@mess #broadcast bo "you too"`, "@status 0")
		ana.until(" bo: you too")
	}
	ana.keys("\x1dtoggle crlf\r") // Enter is CR LF from now on, and no more CR NUL
	ana.until("carriage return")
	ana.keys("\r/quit\r")
	ana.until("Goodbye.")
	_ = cmd.Wait() // its exit code says how the connection ended, in its own way
}
