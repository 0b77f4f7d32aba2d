package test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // openBeside reads databases

	"homeroom/test/wire"
)

// openBeside opens the database of a folder on a connection of the test's own,
// as a person with the sqlite3 program would.
func openBeside(t testing.TB, folder string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(folder, databaseFile)+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// askDatabase asks the database of a folder for one number. It opens a copy: what
// is in the folder stays as it was left.
func askDatabase(t testing.TB, folder, question string) (n int) {
	t.Helper()
	copied := t.TempDir()
	copyFolder(t, folder, copied)
	db := openBeside(t, copied)
	defer db.Close()
	if err := db.QueryRow(question).Scan(&n); err != nil {
		t.Fatalf("%s: %v", question, err)
	}
	return n
}

// mustExec runs SQL that must work.
func mustExec(t testing.TB, db *sql.DB, text string, args ...any) {
	t.Helper()
	if _, err := db.Exec(text, args...); err != nil {
		t.Fatalf("%.60s: %v", text, err)
	}
}

// wantSound expects a database file to be whole.
func wantSound(t testing.TB, file string) {
	t.Helper()
	copied := t.TempDir()
	content, err := os.ReadFile(file)
	if err := errors.Join(err, os.WriteFile(filepath.Join(copied, databaseFile), content, 0o600)); err != nil {
		t.Fatal(err)
	}
	db := openBeside(t, copied)
	defer db.Close()
	var said string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&said); err != nil || said != "ok" {
		t.Errorf("%s: %q (%v)", file, said, err)
	}
}

// copyFolder copies the files of a folder for their owner's eyes only.
func copyFolder(t testing.TB, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fileContent returns a file's text, or "" where there is none.
func fileContent(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// fillFolder has a server fill a data folder with some of everything, and returns
// what it shows of that.
func fillFolder(t testing.TB, folder string, messages int) (all []string) {
	t.Helper()
	p := startOn(t, folder)
	c := p.Member("alice")
	c.Ask("#createroom den", "@status 0")
	c.Ask(`#creategroup talk "" anon 0`, "@status 0")
	c.Ask("#joingroup talk", "@status 0")
	for i := range messages {
		c.Send("#postmessage heading", fmt.Sprintf("message %d %s", i, strings.Repeat("text ", i%180)))
	}
	for range messages {
		c.Expect("@status 0")
	}
	c.Conn.Close() // a stop waits for those who stay
	all = contents(p)
	if code := p.terminate(); code != exitDone {
		t.Fatalf("exit code %d", code)
	}
	return all
}

// startOn starts a server on a data folder.
func startOn(t testing.TB, folder string) *program {
	t.Helper()
	return startProgram(t, buildProgram(t), "-config", writeSettings(t, programSettings), "-data", folder)
}

// contents returns all that a server shows of what it has stored, but for how many
// seconds each has left.
func contents(p *program) (all []string) {
	p.T.Helper()
	c := p.Dial()
	defer c.Conn.Close()
	c.Ask("#login regd alice pw", "@status 0")
	list := func(command string, secs int) (lines [][]string) {
		c.Send(command)
		n, _ := strconv.Atoi(wire.Words(c.Read())[2])
		for range n {
			words := wire.Words(c.Read())
			all = append(all, strings.Join(append(words[:secs:secs], words[secs+1:]...), " "))
			lines = append(lines, words)
		}
		return lines
	}
	list("#listrooms", 3)
	for _, group := range list("#listgroups", 5) {
		c.Ask("#joingroup "+group[0], "@status 0")
		for _, message := range list("#listmessages", 5) {
			c.Send("#getmessage " + message[2])
			lines, _ := strconv.Atoi(wire.Words(c.Read())[3])
			for range lines {
				all = append(all, c.Read())
			}
		}
	}
	return all
}

// wantContents expects a server to start on a copy of a folder, and to show there
// what it showed before.
func wantContents(t testing.TB, folder string, want []string) {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "copy")
	copyFolder(t, folder, copied)
	p := startOn(t, copied)
	wantSameContents(t, contents(p), want)
	p.kill()
}

// wantSameContents compares what two servers show.
func wantSameContents(t testing.TB, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d lines are shown, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %.100q, want %.100q", got[i], want[i])
		}
	}
}

// wantChecked expects `homeroom check` to find nothing wrong in a folder, if it
// has a database.
func wantChecked(t testing.TB, folder string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(folder, databaseFile)); err != nil {
		return
	}
	if code, said, why := run(t, "check", "-data", folder); code != exitDone {
		t.Errorf("homeroom check: exit code %d, %s\n%s", code, why, said)
	}
}
