package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"homeroom/test/wire"
)

// TestConsoleTerminal: the shipped program at a real terminal: it completes, brings
// lines back, shows what others announce, and gives the terminal back.
func TestConsoleTerminal(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := startOn(t, data)
	root := p.Member("root")
	dialFolder(t, data).Ask("#role root admin", "@status 0")
	near, far := openTerminal(t)
	cmd := exec.Command(buildProgram(t), "console", "-data", data)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = far, far, far
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	far.Close()
	watchdog := time.AfterFunc(wire.Patience, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	screen := &screenReader{t: t, terminal: near}
	screen.until("homeroom> ")
	screen.keys("LI\t\r")
	screen.until("1 logged in")
	screen.keys("#pi\tone\r")
	screen.until("#ping one\r\n#ping one")
	screen.keys("\x1b[A\r") // the line before
	screen.until("#ping one\r\n#ping one")
	root.Ask("#announce tea", `@mess #announce root "tea"`, "@status 0")
	screen.until("root to all: tea")
	screen.keys("#watchlog on\r")
	root.Barrier()
	screen.keys("exit\r")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the console ends with %v; it showed %q", err, screen.shown)
	}
	root.Ask("#ping", "@ret #ping") // the server goes on
}

// screenReader reads what a terminal shows.
type screenReader struct {
	t        *testing.T
	terminal *os.File
	shown    string
}

// until reads until a text was shown, and forgets all up to it.
func (s *screenReader) until(text string) {
	s.t.Helper()
	buf := make([]byte, 4096)
	for {
		if _, after, found := strings.Cut(s.shown, text); found {
			s.shown = after
			return
		}
		n, err := s.terminal.Read(buf)
		if err != nil {
			s.t.Fatalf("the terminal shows %q and then %v; want %q", s.shown, err, text)
		}
		s.shown += string(buf[:n])
	}
}

// keys types.
func (s *screenReader) keys(text string) {
	s.t.Helper()
	if _, err := s.terminal.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// openTerminal makes a pseudo terminal (pts(4)): the test's end, and the program's.
func openTerminal(t *testing.T) (near, far *os.File) {
	t.Helper()
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no pseudo terminals: %v", err)
	}
	t.Cleanup(func() { near.Close() })
	var number, unlocked int32
	control := func(request uintptr, value *int32) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, near.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatalf("making a pseudo terminal: %v", errno)
		}
	}
	control(syscall.TIOCSPTLCK, &unlocked)
	control(syscall.TIOCGPTN, &number)
	far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

// TestBackground: a server that a shell has in the background serves on, started there
// or put there, with its log in a file or not, and hears its keyboard again after fg.
func TestBackground(t *testing.T) {
	t.Parallel()
	path, data := buildProgram(t), t.TempDir()
	settings := writeSettings(t, programSettings)
	near, far := openTerminal(t)
	shell := exec.Command("/bin/sh", "-i")
	shell.Stdin, shell.Stdout, shell.Stderr = far, far, far
	shell.Env = append(os.Environ(), "PS1=ready> ", "ENV=")
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	far.Close()
	watchdog := time.AfterFunc(wire.Patience, func() { _ = shell.Process.Kill() })
	defer watchdog.Stop()
	screen := &screenReader{t: t, terminal: near}
	serves := func() {
		t.Helper()
		for range 3 { // it has been reading for a while
			dialFolder(t, data).Ask("#ping", "@ret #ping")
		}
	}
	line := fmt.Sprintf("%s -config %s -data %s", path, settings, data)
	screen.until("ready> ")
	screen.keys(line + " &\r")
	screen.until("to connect: telnet ")
	screen.until("What you type here goes to everybody. HELP shows the commands, EXIT stops the server.")
	serves()
	screen.keys("fg\r")
	screen.until(settings) // the shell says which job it is
	screen.keys("#ping one\r")
	screen.until("#ping one\r\n#ping one")
	screen.keys("\x1a")
	screen.until("ready> ")
	screen.keys("bg\r")
	screen.until("ready> ")
	serves()
	screen.keys("echo again\r")
	screen.until("\nagain")
	screen.keys("fg\r")
	screen.until(settings)
	screen.keys("ls\r")
	screen.until(`Is everybody to read "ls"? Type y or n`)
	screen.keys("n\r")
	screen.until("not announced")
	screen.keys("tea\r")
	screen.until("everybody was told: tea")
	screen.keys("exit\r")
	screen.until("ready> ")
	log := filepath.Join(data, "log")
	screen.keys(line + " >" + log + " 2>&1 &\r")
	wire.Until(t, "the server listens", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "to connect: telnet ")
	})
	serves()
	screen.keys("kill %1; wait; exit\r")
	if err := shell.Wait(); err != nil {
		t.Logf("the shell ends with %v", err) // as its last job has
	}
}
