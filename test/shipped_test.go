package test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shipped is a program of a release, and what runs it where this machine is of
// another kind: go test -run TestShipped ./test -shipped "qemu-arm-static -cpu arm1176 dist/homeroom-linux-arm6".
var shipped = flag.String("shipped", "", "the program that TestShipped runs, with an emulator before it")

// shippedSettings is what a test needs for itself; all else is as it is shipped.
const shippedSettings = `
[server]
listen = "127.0.0.1:0"
[auth]
password_min = 0
[tls]
listen = "127.0.0.1:0"
`

// TestShipped: a program that was built for another machine starts, and takes a
// login and a message; both are there after a restart and after a kill.
func TestShipped(t *testing.T) {
	if *shipped == "" {
		t.Skip("no -shipped is given")
	}
	words := commandOf(t, *shipped)
	data := t.TempDir()
	serve := append(words[1:len(words):len(words)], "serve", "-config", writeSettings(t, shippedSettings), "-data", data)
	runShipped(t, words, ", protocol 0.03", "version")

	p := startProgram(t, words[0], serve...)
	ann := p.Member("ann")
	ann.Ask(`#creategroup News ""`, "@status 0")
	ann.Ask("#joingroup News", "@status 0")
	ann.Send("#postmessage Tea 0 2", "at four,", "in the kitchen")
	if said := strings.Join(ann.Barrier(), "\n"); !strings.Contains(said, "@status 0") {
		t.Fatalf("posting a message: %q", said)
	}
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d after SIGTERM, with:\n%s", code, p.logged())
	}
	for _, end := range []string{"a restart", "a kill"} {
		p = startProgram(t, words[0], serve...)
		readTea(t, p, end)
		p.kill()
	}
	runShipped(t, words, "all is well", "check", "-data", data)
}

// commandOf splits a command line, and makes its files independent of the folder.
func commandOf(t *testing.T, line string) []string {
	t.Helper()
	words := strings.Fields(line)
	program, err := exec.LookPath(words[0])
	if err != nil {
		t.Fatalf("-shipped: %v", err)
	}
	words[0] = program
	for i, word := range words {
		if _, err := os.Stat(word); err != nil {
			continue // not a file
		}
		if words[i], err = filepath.Abs(word); err != nil {
			t.Fatalf("-shipped: %v", err)
		}
	}
	return words
}

// runShipped runs a command of the program that ends by itself, and expects some
// text of it.
func runShipped(t *testing.T, words []string, want string, args ...string) {
	t.Helper()
	out, err := exec.Command(words[0], append(words[1:len(words):len(words)], args...)...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %v, want %q in:\n%s", args, err, want, out)
	}
	t.Logf("%v:\n%s", args, out)
}

// readTea logs in to the account and reads the message.
func readTea(t *testing.T, p *program, after string) {
	t.Helper()
	ann := p.Dial()
	ann.Ask("#login regd ann pw", "@status 0")
	ann.Ask("#joingroup News", "@status 0")
	ann.Send("#getmessage 1")
	said := ann.Barrier()
	if len(said) < 3 || said[1] != "at four," || said[2] != "in the kitchen" {
		t.Errorf("the message after %s: %q", after, said)
	}
}
