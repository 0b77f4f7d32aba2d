package logbook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fileLog makes a log that writes to files of 4 KiB in a fresh folder.
func fileLog(t *testing.T, keep int) (l *Log, o Options, stderr *bytes.Buffer) {
	t.Helper()
	o = Options{File: filepath.Join(t.TempDir(), "homeroom.log"), Size: 4 << 10, Keep: keep}
	stderr = new(bytes.Buffer)
	l = New(stderr)
	l.Configure(o)
	t.Cleanup(l.Close)
	return l, o, stderr
}

// audit logs numbered lines that nothing counts away.
func audit(l *Log, from, to int) {
	log := slog.New(l.Handler())
	for i := from; i <= to; i++ {
		log.Log(context.Background(), LevelAudit, "line", "i", i)
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

// TestRotates: the files never get larger than the settings say, there are
// never more of them, and together they hold the last lines without a gap.
func TestRotates(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{0, 1, 3} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			t.Parallel()
			l, o, stderr := fileLog(t, keep)
			path := o.File
			const lines = 1000
			audit(l, 1, lines/2)
			l.Configure(o)
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

// TestKeepsFewer: files that are kept no more, since a setting changed, go.
func TestKeepsFewer(t *testing.T) {
	t.Parallel()
	l, o, _ := fileLog(t, 5)
	audit(l, 1, 500)
	o.Keep = 2
	l.Configure(o)
	audit(l, 501, 600)
	if files, err := filepath.Glob(o.File + "*"); err != nil || len(files) != 3 {
		t.Errorf("files: %q (%v)", files, err)
	}
}

// TestReopen: after a program for rotation has taken the file, the next line
// goes to a new one.
func TestReopen(t *testing.T) {
	t.Parallel()
	l, o, _ := fileLog(t, 1)
	path := o.File
	audit(l, 1, 2)
	if err := os.Rename(path, path+".taken"); err != nil {
		t.Fatal(err)
	}
	audit(l, 3, 3)
	l.Configure(o)
	audit(l, 4, 5)
	wantNumbers(t, readLog(t, path+".taken"), 1, 3)
	wantNumbers(t, readLog(t, path), 4, 5)
}

// TestCannotWrite: while the file cannot be written, that is told once, on
// stderr and to administrators; afterwards the file says how much is missing.
func TestCannotWrite(t *testing.T) {
	t.Parallel()
	for name, hinder := range map[string]func(path string) error{
		"no folder":    func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"a folder":     func(path string) error { return os.Mkdir(path, 0o700) },
		"a named pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, o, stderr := fileLog(t, 1)
			path := o.File
			if err := hinder(path); err != nil {
				t.Fatal(err)
			}
			audit(l, 1, 7)
			const told = "cannot write to the log; lines are dropped until that works"
			if n := strings.Count(stderr.String(), told); n != 1 {
				t.Errorf("on stderr it is told %d times: %s", n, stderr)
			}
			if n := strings.Count(strings.Join(l.Last(100), "\n"), told); n != 1 || len(l.Last(100)) != 8 {
				t.Errorf("in memory it is told %d times: %q", n, l.Last(100))
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

// smallDisk makes a disk of 1 MiB and returns where it is mounted.
func smallDisk(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("this machine mounts no tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, 0); err != nil {
			t.Error(err)
		}
	})
	return folder
}

// TestFullDisk: a full disk costs the lines that find no space, and nothing
// else; what is there stays whole lines.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	path := filepath.Join(disk, "homeroom.log")
	var stderr bytes.Buffer
	l := New(&stderr)
	l.Configure(Options{File: path, Size: 1 << 20})
	defer l.Close()
	audit(l, 1, 10)
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	audit(l, 11, 200) // some fit into the file's last page
	if n := strings.Count(stderr.String(), "no space left on device"); n != 1 {
		t.Errorf("on stderr it is told %d times: %s", n, &stderr)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	audit(l, 201, 210)
	text := readLog(t, path)
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
