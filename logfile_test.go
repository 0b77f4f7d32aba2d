package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fileLog is a log that writes to a file in a fresh folder, as the settings say.
func fileLog(t *testing.T, sizeKiB, keep int) (l *serverLog, path string, stderr *bytes.Buffer) {
	t.Helper()
	cfg := defaultConfig()
	cfg.Server.Data, cfg.Log.To, cfg.Log.SizeKiB, cfg.Log.Keep = t.TempDir(), "file", sizeKiB, keep
	stderr = new(bytes.Buffer)
	l = newServerLog(stderr)
	l.configure(&cfg)
	t.Cleanup(l.close)
	return l, filepath.Join(cfg.Server.Data, logName), stderr
}

// audit logs numbered lines that nothing counts away.
func audit(l *serverLog, from, to int) {
	log := slog.New(l.handler())
	for i := from; i <= to; i++ {
		log.Log(context.Background(), levelAudit, "line", "i", i)
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

// wantNumbers checks that a text has the numbered lines from first to last, whole.
func wantNumbers(t *testing.T, text string, first, last int) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "time=") || !strings.HasSuffix(line, fmt.Sprint(" i=", first+i)) {
			t.Errorf("line %d is %q, want i=%d in it", i, line, first+i)
			return
		}
	}
	if len(lines) != last-first+1 {
		t.Errorf("%d lines, want %d", len(lines), last-first+1)
	}
}

// TestLogRotates: the files never get larger than the settings say, there are
// never more of them, and together they hold the last lines without a gap.
func TestLogRotates(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{0, 1, 3} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			t.Parallel()
			l, path, stderr := fileLog(t, 4, keep)
			const lines = 1000
			audit(l, 1, lines/2)
			l.reopen()
			audit(l, lines/2+1, lines)
			files, err := filepath.Glob(path + "*")
			if err != nil || len(files) != keep+1 {
				t.Errorf("files: %q (%v)", files, err)
			}
			var all string
			for n := keep; n >= 0; n-- {
				name := (&logFile{path: path}).name(n)
				info, err := os.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				if info.Size() > 4<<10 || info.Size() < 4<<10-100 && n > 0 || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %d bytes, mode %v", name, info.Size(), info.Mode())
				}
				all += readLog(t, name)
			}
			wantNumbers(t, all, lines-strings.Count(all, "\n")+1, lines)
			if stderr.Len() > 0 {
				t.Errorf("on stderr: %s", stderr)
			}
		})
	}
}

// TestLogKeepsFewer: files that are kept no more, since a setting changed, go.
func TestLogKeepsFewer(t *testing.T) {
	t.Parallel()
	l, path, _ := fileLog(t, 4, 5)
	audit(l, 1, 500)
	cfg := defaultConfig()
	cfg.Log.To, cfg.Log.File, cfg.Log.SizeKiB, cfg.Log.Keep = "file", path, 4, 2
	l.configure(&cfg)
	audit(l, 501, 600)
	if files, err := filepath.Glob(path + "*"); err != nil || len(files) != 3 {
		t.Errorf("files: %q (%v)", files, err)
	}
}

// TestLogReopen: after a program for rotation has taken the file, the next line
// goes to a new one.
func TestLogReopen(t *testing.T) {
	t.Parallel()
	l, path, _ := fileLog(t, 4, 1)
	audit(l, 1, 2)
	if err := os.Rename(path, path+".taken"); err != nil {
		t.Fatal(err)
	}
	audit(l, 3, 3)
	l.reopen()
	audit(l, 4, 5)
	wantNumbers(t, readLog(t, path+".taken"), 1, 3)
	wantNumbers(t, readLog(t, path), 4, 5)
}

// TestLogCannotWrite: while the file cannot be written, that is told once, on
// stderr and to administrators; afterwards the file says how much is missing.
func TestLogCannotWrite(t *testing.T) {
	t.Parallel()
	for name, hinder := range map[string]func(path string) error{
		"no folder":    func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"a folder":     func(path string) error { return os.Mkdir(path, 0o700) },
		"a named pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, path, stderr := fileLog(t, 4, 1)
			if err := hinder(path); err != nil {
				t.Fatal(err)
			}
			audit(l, 1, 7)
			const told = "cannot write to the log; lines are dropped until that works"
			if n := strings.Count(stderr.String(), told); n != 1 {
				t.Errorf("on stderr it is told %d times: %s", n, stderr)
			}
			if n := strings.Count(strings.Join(l.last(100), "\n"), told); n != 1 || len(l.last(100)) != 8 {
				t.Errorf("in memory it is told %d times: %q", n, l.last(100))
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			audit(l, 8, 9)
			missing, rest, _ := strings.Cut(readLog(t, path), "\n")
			if !strings.HasSuffix(missing, `level=WARN msg="7 lines could not be written to the log"`) {
				t.Errorf("the file begins with %q", missing)
			}
			wantNumbers(t, rest, 8, 9)
		})
	}
}

// TestLogFullDisk: a full disk costs the lines that find no space, and nothing
// else; what is there stays whole lines.
func TestLogFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	cfg := defaultConfig()
	cfg.Server.Data, cfg.Log.To = disk, "file"
	var stderr bytes.Buffer
	l := newServerLog(&stderr)
	l.configure(&cfg)
	defer l.close()
	audit(l, 1, 10)
	filler := filepath.Join(disk, "filler")
	fillDisk(t, filler)
	audit(l, 11, 200) // some fit into the file's last page
	if n := strings.Count(stderr.String(), "no space left on device"); n != 1 {
		t.Errorf("on stderr it is told %d times: %s", n, &stderr)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	audit(l, 201, 210)
	text := readLog(t, filepath.Join(disk, logName))
	before, after, found := strings.Cut(text, " lines could not be written to the log\"\n")
	var missing int
	lines := strings.Split(before, "\n")
	_, number, _ := strings.Cut(lines[len(lines)-1], ` level=WARN msg="`)
	if _, err := fmt.Sscan(number, &missing); err != nil || !found || strings.Count(lines[len(lines)-1], "time=") != 1 {
		t.Fatalf("the file does not say what is missing (%v):\n%s", err, text)
	}
	whole := 0 // the last line before may be there in part
	for strings.HasSuffix(lines[whole], fmt.Sprint(" i=", whole+1)) {
		whole++
	}
	if whole+missing != 200 || len(lines)-whole > 2 {
		t.Errorf("%d lines are there, %d are said to be missing, of 200; other lines: %q", whole, missing, lines[whole:])
	}
	wantNumbers(t, after, 201, 210)
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
