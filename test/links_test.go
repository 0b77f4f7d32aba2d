package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"homeroom/test/wire"
)

// hostile is the user that a data folder of these tests belongs to.
const hostile = 65534

// runFor runs a command line that must end soon, without a terminal.
func runFor(t testing.TB, path, input string, args ...string) (code int, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wire.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%v does not end; it says %q", args, out)
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// giveFolder gives a folder, and what is in it, to its hostile owner.
func giveFolder(t testing.TB, folder string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, hostile, hostile))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// trap puts a link to a file of root's in the place of a file in the folder.
func trap(t testing.TB, folder, name, kind, victim string) {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var err error
	switch kind {
	case "symbolic":
		err = errors.Join(os.Symlink(victim, path), os.Lchown(path, hostile, hostile))
	case "hard":
		err = os.Link(victim, path)
	case "FIFO":
		err = errors.Join(syscall.Mkfifo(path, 0o600), os.Lchown(path, hostile, hostile))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRootFollowsNoLink: whatever the owner of a data folder puts there in the place of
// a file, none of root's commands reads it, writes it, or waits for it.
func TestRootFollowsNoLink(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("this is about root")
	}
	program, template := buildProgram(t), filepath.Join(t.TempDir(), "data")
	settings := writeSettings(t, programSettings)
	fillFolder(t, template, 3)
	backup, password := filepath.Join(t.TempDir(), "backup.db"), filepath.Join(t.TempDir(), "password")
	if code, said := runFor(t, program, "", "backup", "-data", template, backup); code != exitDone {
		t.Fatal(said)
	}
	if err := os.WriteFile(password, []byte("a long password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	commands := [][]string{
		{"backup", filepath.Join(t.TempDir(), "made.db")}, {"restore", backup}, {"restore", "-force", backup}, {"check"},
		{"key", "rotate"}, {"admin", "add", "root", "-password-file", password}, {"console", "-c", "#ping"}, {"status"},
	}
	names := []string{
		databaseFile, databaseFile + "-wal", databaseFile + "-shm", databaseFile + "-journal", databaseFile + ".restore", databaseFile + ".old-1",
		keyFile, keyFile + ".new", keyFile + ".1", "lock", "last-backup", controlFile, "tls.pem",
	}
	for _, kind := range []string{"symbolic", "hard", "FIFO"} {
		for _, mode := range []fs.FileMode{0o755, 0o700} { // of the folder above: whether the owner can get to it
			t.Run(fmt.Sprintf("%s %o", kind, mode), func(t *testing.T) {
				if mode == 0o700 || kind == "FIFO" {
					onlyLong(t)
				}
				t.Parallel()
				for _, name := range names {
					for _, words := range commands {
						tryTrap(t, program, template, name, kind, mode, append([]string{words[0]}, append(words[1:len(words):len(words)], "-config", settings)...))
					}
				}
			})
		}
	}
}

// tryTrap runs one command of root's on a copy of the folder with one trap in it.
func tryTrap(t *testing.T, program, template, name, kind string, above fs.FileMode, words []string) {
	t.Helper()
	const secret = "that is root's alone, 32 bytes.."
	parent, err := os.MkdirTemp("", "homeroom-trap-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(parent)
	folder, victim := filepath.Join(parent, "data"), filepath.Join(parent, "victim")
	copyFolder(t, template, folder)
	if err := errors.Join(os.Chmod(parent, above), os.WriteFile(victim, []byte(secret), 0o600)); err != nil {
		t.Fatal(err)
	}
	giveFolder(t, folder)
	trap(t, folder, name, kind, victim)
	before, err := os.Stat(victim)
	if err != nil {
		t.Fatal(err)
	}
	code, said := runFor(t, program, "", append(words, "-data", folder)...)
	what := fmt.Sprintf("%v with a %s for %s (exit code %d, %q)", words, kind, name, code, said)
	after, err := os.Stat(victim)
	text, _ := os.ReadFile(victim)
	if err != nil || string(text) != secret || after.Mode() != before.Mode() || after.ModTime() != before.ModTime() || after.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("%s: root's file is %v, %q now", what, after.Mode(), text)
	}
	if strings.Contains(said, secret) || strings.Contains(said, "panic") {
		t.Errorf("%s: it tells of it", what)
	}
	if reads := words[0] == "backup" || words[0] == "check" || words[0] == "key"; reads && strings.HasPrefix(name, databaseFile) && !strings.Contains(name, ".old") &&
		!strings.Contains(name, ".restore") && (code != exitFailed || !strings.Contains(said, folder) || !strings.Contains(said, kind)) {
		t.Errorf("%s: want why it is refused", what)
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := filepath.Join(folder, f.Name())
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if os.SameFile(info, after) || f.Name() == name || !info.Mode().IsRegular() {
			continue
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != hostile {
			t.Errorf("%s: %s is user %d's", what, f.Name(), owner)
		}
		if text, err := os.ReadFile(path); err != nil || bytes.Contains(text, []byte(secret)) {
			t.Errorf("%s: what is root's is in %s (%v)", what, f.Name(), err)
		}
	}
}

// TestRootsFilesAreTheOwners: what root's commands write into a data folder, its owner
// can read, and root reaches files that the owner does not.
func TestRootsFilesAreTheOwners(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("this is about root")
	}
	program, parent, private := buildProgram(t), t.TempDir(), t.TempDir()
	folder := filepath.Join(parent, "data")
	fillFolder(t, folder, 3)
	giveFolder(t, folder)
	key, password := filepath.Join(private, "key"), filepath.Join(private, "password")
	settings := writeSettings(t, strings.Replace(programSettings, "[server]", fmt.Sprintf("[server]\nkey = %q", key), 1))
	err := errors.Join(os.Chmod(filepath.Dir(parent), 0o755), os.Chmod(parent, 0o755), os.Chmod(private, 0o700),
		os.Rename(filepath.Join(folder, keyFile), key), os.WriteFile(password, []byte("a long password\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range [][]string{
		{"backup", filepath.Join(private, "made.db")}, {"backup", filepath.Join(folder, "made.db")}, {"check"}, {"key", "rotate"},
		{"admin", "add", "root", "-password-file", password}, {"backup", filepath.Join(private, "made.db")},
		{"restore", "-force", filepath.Join(private, "made.db")}, {"check"},
	} {
		if code, said := runFor(t, program, "", append(words, "-config", settings, "-data", folder)...); code != exitDone {
			t.Errorf("%v: exit code %d, %s", words, code, said)
		}
	}
	owners := map[string]uint32{filepath.Join(private, "made.db"): 0, key: hostile}
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		owners[filepath.Join(folder, f.Name())] = hostile
	}
	for _, name := range []string{"last-backup", "made.db", databaseFile, databaseFile + ".old-1"} {
		owners[filepath.Join(folder, name)] = hostile
	}
	for path, want := range owners {
		info, err := os.Lstat(path)
		if err != nil {
			t.Error(err)
		} else if got := info.Sys().(*syscall.Stat_t).Uid; got != want {
			t.Errorf("%s is user %d's, want %d", path, got, want)
		}
	}
}

// TestPasswordFromPipe: the password of a new administrator may come out of a pipe.
func TestPasswordFromPipe(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "data")
	code, said := runFor(t, buildProgram(t), "a long password\n", "admin", "add", "root", "-data", folder, "-password-file", "/dev/stdin")
	if code != exitDone || !strings.Contains(said, "root is an administrator now") {
		t.Errorf("exit code %d, %s", code, said)
	}
}

// TestBackupOfNoFile: what is no file is refused at once, and named.
func TestBackupOfNoFile(t *testing.T) {
	t.Parallel()
	program, folder := buildProgram(t), filepath.Join(t.TempDir(), "data")
	fillFolder(t, folder, 3)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		fifo: "a FIFO", "/dev/null": "a device", "/dev/zero": "a device", "/dev/stdin": "a FIFO", "-": "a stream cannot be used", folder: "a folder",
	} {
		for _, verb := range []string{"backup", "restore"} {
			code, said := runFor(t, program, "", verb, "-data", folder, file)
			if code != exitFailed || !strings.Contains(said, want) || strings.Count(said, "\n") != 1 {
				t.Errorf("%s %s: exit code %d, %q, want %q", verb, file, code, said, want)
			}
		}
	}
}

// TestOpenFolder: a data folder that others may enter is closed to them, or refused.
func TestOpenFolder(t *testing.T) {
	t.Parallel()
	program, settings := buildProgram(t), writeSettings(t, programSettings)
	folder := filepath.Join(t.TempDir(), "data")
	for _, mode := range []fs.FileMode{0o755, 0o777, 0o750, 0o710} {
		if err := errors.Join(os.MkdirAll(folder, 0o700), os.Chmod(folder, mode)); err != nil {
			t.Fatal(err)
		}
		p := startProgram(t, program, "-config", settings, "-data", folder)
		p.loggedLine(fmt.Sprintf("%04o", mode))
		if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%o: %v, %v", mode, info.Mode(), err)
		}
		p.terminate()
	}
	other := filepath.Join(t.TempDir(), "else")
	err := errors.Join(os.Mkdir(other, 0o755), os.WriteFile(filepath.Join(other, "thesis"), nil, 0o644), os.Chmod(other, 0o755))
	if err != nil {
		t.Fatal(err)
	}
	refused := []string{other}
	if os.Geteuid() == 0 {
		theirs := filepath.Join(t.TempDir(), "theirs")
		if err := errors.Join(os.Mkdir(theirs, 0o777), os.Chmod(theirs, 0o777), os.WriteFile(filepath.Join(theirs, keyFile), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(theirs, keyFile), hostile, hostile); err != nil {
			t.Fatal(err)
		}
		refused = append(refused, theirs, os.TempDir())
	}
	for _, folder := range refused {
		before, err := os.Stat(folder)
		if err != nil {
			t.Fatal(err)
		}
		if said := refusal(t, program, "-config", settings, "-data", folder); !strings.Contains(said, "chmod 700 "+folder) {
			t.Errorf("%s: %q", folder, said)
		}
		if after, err := os.Stat(folder); err != nil || after.Mode() != before.Mode() {
			t.Errorf("%s is changed: %v, %v", folder, after.Mode(), err)
		}
	}
}
