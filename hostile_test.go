package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode"
	"unicode/utf8"

	"homeroom/test/wire"
)

// hostileTexts is what users try in order to write on somebody else's screen.
var hostileTexts = []string{
	"x\r@status 0",
	"x\x0b@mess #warning \"you lost\"",
	"x\u2028@status 0",
	"x\u2029@status 0",
	"x\u0085@status 0",
	"\x1b[2J\x1b[31mred",
	"\x1b]0;title\x07",
	"\xc2\x9b31m and \x9b31m",
	"\x90DCS\x9c",
	"bell \x07 null \x00 so \x0e del \x7f back \x08\x08\x08",
	"\u202eesrever\u202c",
	"\u2066isolate\u2069 \u202aembedding\u202b",
	"\xff\xfd\x01\xff\xfa\x18x\xff\xf0",
	"\xc0\x8a@status 0",
	"\xe0\x80\x8a@status 0",
	"\\\" @status 0 \"",
	"\xed\xa0\x80 \xf5\x80\x80\x80 \xfe \xc3",
}

// unsafeFor names what a line must not hold, whoever reads it; "" if it is safe.
func unsafeFor(line string) string {
	if !utf8.ValidString(line) {
		return "bytes that are not UTF-8"
	}
	for _, r := range line {
		if r != '\t' && unicode.IsControl(r) {
			return fmt.Sprintf("the control character %U", r)
		}
		if unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return fmt.Sprintf("the line separator %U", r)
		}
		if r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return fmt.Sprintf("the direction character %U", r)
		}
	}
	return ""
}

// hostileCommands is every command that carries a text of its sender's, with %s
// in its place.
var hostileCommands = []string{
	`#broadcast "%s"`, `#broadcast %s`, `#sendto bob "%s"`, `#sendto "%s" hi`,
	`#peer2peer bob 80 "%s"`, `#peer2peer bob "%s" 10.0.0.1`, `#peer2peer "%s" 80 10.0.0.1`,
	`#createroom "%s"`, `#createroom x%s`, `#createroom y "" "%s"`, `#changeroom "%s"`, `#changeroom Home`, `#rmroom "%s"`,
	`#creategroup "%s" "" anon`, `#creategroup x%s "%s" anon`, `#joingroup "%s" "%s"`, `#joingroup talk`,
	"#postmessage \"%s\" 0 3\r\n%s\r\n@status 0%s\r\n \t%s", "#postmessage x%s 0 1\r\n%s",
	`#createlogin "%s" pw "%s" "%s"`, `#createlogin x%s pw "%s" "%s"`, `#changepass "%s" "%s"`, `#listmessages "%s"`,
	`#getmessage "%s"`, `#events "%s"`, `#help "%s"`, `#ping "%s"`, `#x%s "%s"`, `"%s"`, `%s`, `#login regd "%s" "%s"`,
}

// everyField is every command of the table, with a hostile text in each of its
// fields alone, in all of them, and in one too many.
func everyField() (commands []string) {
	for _, c := range commandRows() {
		if c.name == "#quit" { // which works with any words
			continue
		}
		if c.name == "#rmlogin" { // without words it works; with any, 3504
			commands = append(commands, c.name+` "%s"`)
			continue
		}
		fields := c.most
		if fields == anyNumber {
			fields = 5
		}
		for n := 1; n <= fields+1; n++ {
			for at := range n {
				words := slices.Repeat([]string{"1"}, n)
				words[at] = `"%s"`
				commands = append(commands, c.name+" "+strings.Join(words, " "))
			}
			commands = append(commands, c.name+strings.Repeat(` "x%s"`, n))
		}
	}
	return commands
}

// TestNoHostileTextGetsThrough has one user send hostile texts in every field of
// every command, while another hears and lists everything there is.
func TestNoHostileTextGetsThrough(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	mallory, bob := srv.Guest("mallory"), srv.Guest("bob")
	bob.Ask(`#creategroup talk "" anon`, "@status 0")
	for _, c := range []*wire.Client{bob, mallory} {
		c.Ask("#joingroup talk", "@status 0")
	}
	bob.Ask("#events on", "@status 0")
	commands := append(everyField(), hostileCommands...)
	for _, text := range hostileTexts {
		for _, command := range commands {
			mallory.Raw(strings.ReplaceAll(command, "%s", text) + "\r\n")
		}
		mallory.Barrier()
		checkScreen(t, text, bob.Barrier())
		loginHostile(srv, text, func() { checkScreen(t, text, everything(bob)) })
	}
}

// loginHostile is a guest with that text in its name, while see runs.
func loginHostile(srv *testServer, text string, see func()) {
	srv.T.Helper()
	for _, name := range []string{text, "x" + text} {
		c := srv.Dial()
		c.Raw(`#login anon "` + name + "\"\r\n#broadcast hi\r\n")
		c.Barrier()
		see()
		c.Ask("#quit", "@status 0")
	}
}

// everything asks for every list, and reads every message.
func everything(c *wire.Client) []string {
	c.T.Helper()
	c.Send("#whoami", "#listusers", "#listrooms", "#listgroups", "#listmessages")
	lines := c.Barrier()
	at := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "@ret #listmessages ") })
	for _, line := range lines[at+1:] {
		if words := splitWords(line, nil); len(words) == 6 {
			c.Send("#getmessage " + words[2])
			lines = append(lines, c.Barrier()...)
		}
	}
	return lines
}

// checkScreen checks that the server wrote every line, and that none can do
// anything to a terminal.
func checkScreen(t *testing.T, text string, lines []string) {
	t.Helper()
	counted := 0 // lines of a list or message to come
	for _, line := range lines {
		if bad := unsafeFor(line); bad != "" {
			t.Errorf("%q got through as %q: %s", text, line, bad)
		}
		words := splitWords(line, nil)
		switch {
		case counted > 0:
			counted--
		case len(words) > 2 && words[0] == "@ret" && strings.HasPrefix(words[1], "#list"):
			n, _ := parseNumber(words[2])
			counted = int(n)
		case len(words) > 3 && words[0] == "@ret" && words[1] == "#getmessage":
			n, _ := parseNumber(words[3])
			counted = int(n)
		case len(words) == 7 && words[1] == "#whoami", strings.HasPrefix(line, "@mess #"):
		default:
			t.Errorf("%q made the line %q", text, line)
		}
	}
	if counted != 0 {
		t.Errorf("%q: a list has %d lines less than it says", text, counted)
	}
}

// TestComingAndGoing: 2000 people who come and go, in every way there is to go,
// leave nothing behind. (It is not parallel: it counts.)
func TestComingAndGoing(t *testing.T) {
	srv := startServer(t)
	srv.Guest("stays").Barrier()
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	var next atomic.Int64
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for i := next.Add(1); i <= 2000; i = next.Add(1) {
				if err := wire.ComeAndGo(t, srv.Addr, int(i)); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			}
		})
	}
	running.Wait()
	wire.WantBack(t, "goroutines", goroutines, runtime.NumGoroutine)
	wire.WantBack(t, "open files", files, func() int { return openFiles(t) })
	srv.doorway.mu.Lock()
	defer srv.doorway.mu.Unlock()
	if n := len(srv.doorway.sessions); n != 1 {
		t.Errorf("%d sessions are left, want 1", n)
	}
	srv.users.mu.Lock()
	defer srv.users.mu.Unlock()
	if n := len(srv.users.online); n != 1 {
		t.Errorf("%d names are still in use, want 1", n)
	}
	srv.doorway.admission.mu.Lock()
	defer srv.doorway.admission.mu.Unlock()
	if srv.doorway.admission.open != 1 || srv.doorway.admission.asking != 0 {
		t.Errorf("%d connections are counted, %d of them not logged in; want 1 and 0", srv.doorway.admission.open, srv.doorway.admission.asking)
	}
	if users, _ := srv.rooms.home.state(0); users != 1 {
		t.Errorf("%d users are in Home, want 1", users)
	}
}

// openFiles is how many files this process has open.
func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this machine does not show a process's open files")
	}
	return len(entries)
}
