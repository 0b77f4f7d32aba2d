package main

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
)

func TestKeyboardCommands(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	bob := srv.Guest("Bob")
	alice := srv.Guest("alice")
	alice.Ask("#createroom den", "@status 0")
	alice.Ask("#changeroom den", "@status 0")
	for _, test := range []struct{ line, want string }{
		{"HELP", keyboardHelp},
		{"help", keyboardHelp},
		{"LIST_USERS", "Bob (anon) in Home\nalice (anon) in den\n2 logged in\n"},
		{"list_users", "Bob (anon) in Home\nalice (anon) in den\n2 logged in\n"},
		{"KICK", "KICK takes one user name\n"},
		{"KICK a b", "KICK takes one user name\n"},
		{"KICK nobody", "nobody is logged in as nobody\n"},
		{"KICK -", "nobody is logged in as -\n"},
		{"kick bob", "bob was disconnected\n"},
	} {
		if got := srv.typed(test.line); got != test.want {
			t.Errorf("%q shows %q, want %q", test.line, got, test.want)
		}
	}
	bob.Ended(`@mess #warning "you were disconnected by the host"`)
	alice.Ask("#ping", "@ret #ping") // nothing of this reached anybody else
}

// TestKeyboardAnnounces: what is no command goes to everybody who is logged in,
// with everything on the line.
func TestKeyboardAnnounces(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice, bob, stranger := srv.Guest("alice"), srv.Guest("bob"), srv.Dial()
	bob.Ask("#createroom den", "@status 0")
	bob.Ask("#changeroom den", "@status 0")
	for line, want := range map[string]string{
		"We close at ten":      `@mess #announce Host "We close at ten"`,
		`say "hi" and \`:       `@mess #announce Host "say \"hi\" and \\"`,
		"help me somebody":     `@mess #announce Host "help me somebody"`,
		"list_users please":    `@mess #announce Host "list_users please"`,
		"kick off is at seven": `@mess #announce Host "kick off is at seven"`,
		"#broadcast hello":     `@mess #announce Host "#broadcast hello"`,
		`""`:                   `@mess #announce Host "\"\""`,
	} {
		if shown := srv.typed(line); shown != "" {
			t.Errorf("%q shows %q, want nothing", line, shown)
		}
		alice.Expect(want)
		bob.Expect(want)
	}
	stranger.Ask("#ping", "@ret #ping")
}

// safeBuffer is a buffer that one goroutine fills while another one reads it.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestKeyboardLines: lines are taken one by one, empty ones are skipped, control
// characters dropped, and EXIT stops the server and nothing after it is read.
func TestKeyboardLines(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice := srv.Guest("alice")
	in := strings.NewReader("\r\n   \n  help  \r\n\x1b[2Jtea is ready\x07\nexit\nKICK alice\n")
	var out safeBuffer
	stops := 0
	srv.keyboard(in, &out, func() { stops++ })
	if out.String() != keyboardHelp || stops != 1 {
		t.Errorf("shown %q and stopped %d times, want the help and once", out.String(), stops)
	}
	alice.Expect(`@mess #announce Host "[2Jtea is ready"`)
	alice.Ask("#ping", "@ret #ping")
}

// TestKeyboardEnds: the end of the keyboard's input stops nothing.
func TestKeyboardEnds(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.keyboard(strings.NewReader("EXITS\nplease EXIT"), io.Discard, func() { t.Error("the server was stopped") })
}
