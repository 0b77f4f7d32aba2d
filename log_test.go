package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"homeroom/logbook"
	"homeroom/test/wire"
)

// TestLogFitsProtocol: whatever is logged is one printable line that fits into
// one of the protocol.
func TestLogFitsProtocol(t *testing.T) {
	t.Parallel()
	cfg := defaultConfig()
	l := logbook.New(io.Discard)
	l.Configure(cfg.logOptions())
	log := slog.New(l.Handler())
	for i, text := range []string{
		"\x1b[2J\x07", "a\r\n@mess #warning \"x\"", "\u202e\u2066\u2028\u0085", "\xff\xfe\x80", "\xff\xf6",
		strings.Repeat("x", 5000), strings.Repeat(`"\`, 2000), strings.Repeat("ä€😀", 700), strings.Repeat("\x00", 900),
	} {
		m := fmt.Sprint("m", i)
		log.Info(text)
		log.Info(m, "k", text)
		log.Info(m, text, 1)
		log.Info(m, slog.Group(text, "k", 1))
		log.WithGroup(text).Info(m, "k", []byte(text))
	}
	lines := l.Last(logbook.Kept)
	if len(lines) != 9*5 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		if b := eventFrame("log", quoted(line)).show(lookProgram); len(b) > maxLine {
			t.Errorf("%d bytes as a line of the protocol: %q", len(b), line)
		}
		if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
			t.Errorf("not printable: %q", line)
		}
	}
}

// readLog is a file's text; "" where there is none.
func readLog(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

// TestLogReaderGone: the server does not end because nobody reads its log.
func TestLogReaderGone(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	cmd := exec.Command(buildProgram(t), "-config", writeSettings(t, programSettings), "-data", data)
	cmd.Stderr = writer
	reader.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	waitUntilServing(t, data, ended)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("a server with nobody at its log: %v", err)
	}
}

// waitUntilServing waits until a program that cannot say so answers on the control
// socket of its data folder.
func waitUntilServing(t *testing.T, folder string, ended chan error) {
	t.Helper()
	for began := time.Now(); tryFolder(t, folder) == nil; {
		select {
		case err := <-ended:
			t.Fatalf("the program has ended: %v", err)
		default:
		}
		if time.Since(began) > wire.Patience {
			t.Fatal("the program does not serve")
		}
	}
}

// TestLogToFile: the shipped program logs to homeroom.log in its folder, which
// nobody else can read, and nothing to stderr.
func TestLogToFile(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := launch(t, buildProgram(t), "-config", writeSettings(t, programSettings+"[log]\nto = \"file\"\n"), "-data", data)
	path := filepath.Join(data, logName)
	waitUntilServing(t, data, nil)
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	text := readLog(t, path)
	if !connectText.MatchString(text) || !strings.HasSuffix(text, "level=INFO msg=stopped\n") {
		t.Errorf("the log holds\n%s", text)
	}
	if p.logged() != "" {
		t.Errorf("on stderr: %s", p.logged())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v (%v)", info.Mode(), err)
	}
}
