package main

// The front door of the tests. TestTwoClients is the shortest one there is: two
// clients that talk over TCP. All that a client can see is shown by sessions, which
// read like the protocol page: those in testdata/ and the one in README.md. The
// player of these sessions knows nothing of this server that a client cannot see,
// and can be pointed at any other that speaks protocol 0.03:
//
//	go test -run Golden -v . -server host:port
//
// plays part A of the protocol against a server that nobody else uses, has nothing
// stored yet, and limits neither commands nor logins. It says which sessions it
// skips, and why.

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"homeroom/test/wire"
)

// otherServer is where the golden sessions are played, if not in this process.
var otherServer = flag.String("server", "", "host:port of a server that the golden sessions are played against")

// TestTwoClients: what one says, the other hears.
func TestTwoClients(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	alice, bob := srv.Guest("alice"), srv.Guest("bob")
	alice.Ask("#broadcast hello", `@mess #broadcast alice "hello"`, "@status 0")
	bob.Expect(`@mess #broadcast alice "hello"`)
	bob.Ask("#sendto alice hi there", "@status 0")
	alice.Expect(`@mess #sendto bob "hi there"`)
}

// The sessions in testdata/*.txt read like the protocol page. A line of one is
//
//	# a comment, or nothing
//	! limits.rooms = 2        a setting; before anyone connects
//	alice> #whoami            alice sends a line (the first time, she connects and takes the hello)
//	alice< @ret #whoami ...   the next line that alice must get
//	host> #stats              the same over the control socket, for the machine's operator
//	alice connects            she connects, and the hello is still to come
//	alice raw> "a\x08b\n"     she sends these bytes (a quoted Go string)
//	alice raw< "\xff\xfc\x01" the next bytes that she must get
//	alice leaves              she closes her connection
//	alice ended               the server has closed it, and nothing more came
//	server restarts           all connections end; the next ones go to a new server on the same folder
//	server dooms den          the room "den" is between the two moments of its deletion
//
// In what is sent and expected, <n> is a number and <1-60> one in that range;
// <n:x> is a number that is the same wherever the script says <n:x>, <n:!x> one
// that is greater than that and is <n:x> from then on, <words> is the rest of
// the line, and <time> a time of day such as 12:04.
// When a script is over, no client may have got a line that it does not name.

// goldenScripts is every script, by its file's name.
func goldenScripts(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	scripts := map[string][]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		scripts[name] = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
	return scripts
}

func TestGoldenSessions(t *testing.T) {
	scripts := goldenScripts(t)
	if *otherServer != "" {
		// The one that makes accounts is the last: they stay, and other scripts have
		// guests of these names.
		names := []string{"words", "telnet", "talk", "login"}
		for name, lines := range scripts {
			if !slices.Contains(names, name) {
				t.Logf("%s: skipped, %s", name, whyOnlyHere(lines))
			}
		}
		for _, name := range names {
			t.Run(name, func(t *testing.T) { playGolden(t, "testdata/"+name+".txt", 1, scripts[name]) })
		}
		return
	}
	for name, lines := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			playGolden(t, "testdata/"+name+".txt", 1, lines)
		})
	}
}

// whyOnlyHere says why a script is not played against another server.
func whyOnlyHere(lines []string) string {
	for _, line := range lines {
		if strings.HasPrefix(line, "! ") {
			return "it needs this server's settings"
		}
		if strings.HasPrefix(line, "server ") || strings.HasPrefix(line, "host> ") {
			return "it needs a hand on the server"
		}
	}
	return "it shows extensions (part B)"
}

// TestGoldenReadme plays the session in README.md that a newcomer types.
func TestGoldenReadme(t *testing.T) {
	t.Parallel()
	if *otherServer != "" {
		t.Skip("its numbers are those of a server that has just been installed")
	}
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, marked := strings.Cut(string(text), "\n<!-- played by the tests -->\n```text\n")
	session, _, ended := strings.Cut(rest, "\n```\n")
	if !marked || !ended {
		t.Fatal("README.md has no session that is marked as played by the tests")
	}
	playGolden(t, "README.md", strings.Count(before, "\n")+4, strings.Split(session, "\n"))
}

// playGolden plays a script whose first line stands on that line of the file.
func playGolden(t *testing.T, file string, first int, lines []string) {
	t.Helper()
	run := &goldenRun{t: t, file: file, clients: map[string]*wire.Client{}, numbers: map[string]string{}}
	for i, line := range lines {
		run.at = first + i
		run.line(line)
	}
	run.nothingLeft()
	if *otherServer != "" {
		run.tidyUp(lines)
	}
}

// goldenRun is one script that is being played.
type goldenRun struct {
	t        *testing.T
	file     string
	at       int // the line
	settings []string
	server   *testServer // nil: none was needed yet, or another server is played against
	clients  map[string]*wire.Client
	numbers  map[string]string // the values of <n:x>
}

var (
	goldenSend = regexp.MustCompile(`^(\w+)(| raw)> ?(.*)$`)
	goldenTake = regexp.MustCompile(`^(\w+)(| raw)< ?(.*)$`)
	goldenVerb = regexp.MustCompile(`^(\w+) (connects|leaves|ended)$`)
)

// fail ends the script, naming its line.
func (g *goldenRun) fail(format string, args ...any) {
	g.t.Helper()
	g.t.Fatalf("%s:%d: %s", g.file, g.at, fmt.Sprintf(format, args...))
}

// line plays one line.
func (g *goldenRun) line(line string) {
	g.t.Helper()
	if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
		return
	}
	if setting, ok := strings.CutPrefix(line, "! "); ok {
		g.settings = append(g.settings, setting)
		return
	}
	if m := goldenSend.FindStringSubmatch(line); m != nil {
		g.send(g.client(m[1]), m[2] != "", m[3])
	} else if m := goldenTake.FindStringSubmatch(line); m != nil && m[2] != "" {
		g.takeBytes(g.client(m[1]), m[3])
	} else if m != nil {
		g.take(g.client(m[1]), m[3])
	} else if m := goldenVerb.FindStringSubmatch(line); m != nil {
		g.verb(m[1], m[2])
	} else {
		g.serverLine(line)
	}
}

// running is the server, started with the script's settings when it is first
// needed.
func (g *goldenRun) running() *testServer {
	g.t.Helper()
	if g.server == nil {
		g.server = startServer(g.t, func(c *config) {
			if err := c.parse(g.file, strings.Join(g.settings, "\n")); err != nil {
				g.t.Fatalf("the script's settings: %v", err)
			}
		})
	}
	return g.server
}

// target is where clients connect.
func (g *goldenRun) target() wire.Target {
	g.t.Helper()
	if *otherServer != "" {
		return wire.Target{T: g.t, Addr: *otherServer}
	}
	return g.running().Target
}

// client is the client of that name, connected when it is first named.
func (g *goldenRun) client(name string) *wire.Client {
	g.t.Helper()
	c := g.clients[name]
	if c == nil {
		if name == "host" {
			c = g.running().dialHost()
		} else {
			c = g.target().Dial()
		}
		g.clients[name] = c
	}
	return c
}

// send sends a line, or bytes, with the numbers that are known filled in.
func (g *goldenRun) send(c *wire.Client, raw bool, text string) {
	g.t.Helper()
	for name, value := range g.numbers {
		text = strings.ReplaceAll(text, "<n:"+name+">", value)
	}
	if raw {
		c.Raw(g.unquote(text))
	} else {
		c.Send(text)
	}
}

func (g *goldenRun) unquote(text string) string {
	g.t.Helper()
	bytes, err := strconv.Unquote(text)
	if err != nil {
		g.fail("%s is no quoted string", text)
	}
	return bytes
}

// take compares the next line with a pattern.
func (g *goldenRun) take(c *wire.Client, pattern string) {
	g.t.Helper()
	line, err := c.ReadErr()
	if err != nil {
		g.fail("got no line (%v), want %s", err, pattern)
	}
	if err := g.match(pattern, line); err != nil {
		g.fail("%v\n got %s\nwant %s", err, line, pattern)
	}
}

func (g *goldenRun) takeBytes(c *wire.Client, text string) {
	g.t.Helper()
	want := g.unquote(text)
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c.In, got); err != nil || string(got) != want {
		g.fail("got %q (%v), want %q", got[:n], err, want)
	}
}

var goldenHole = regexp.MustCompile(`<(n|n:!?\w+|\d+-\d+|words|time)>`)

// match compares a line with a pattern, and notes the numbers that it names.
func (g *goldenRun) match(pattern, line string) error {
	holes := goldenHole.FindAllStringSubmatch(pattern, -1)
	var expr strings.Builder
	for i, fixed := range goldenHole.Split(pattern, -1) {
		expr.WriteString(regexp.QuoteMeta(fixed))
		if i < len(holes) && holes[i][1] == "words" {
			expr.WriteString(`(.*)`)
		} else if i < len(holes) && holes[i][1] == "time" {
			expr.WriteString(`([012]\d:[0-5]\d)`)
		} else if i < len(holes) {
			expr.WriteString(`(\d+)`)
		}
	}
	found := regexp.MustCompile(`^` + expr.String() + `$`).FindStringSubmatch(line)
	if found == nil {
		return fmt.Errorf("another line came")
	}
	for i, hole := range holes {
		if err := g.fill(hole[1], found[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// fill holds the number that stood in a hole against what the hole says.
func (g *goldenRun) fill(hole, value string) error {
	if hole == "words" || hole == "time" {
		return nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return fmt.Errorf("%s does not fit in 63 bits", value)
	}
	if low, high, ok := strings.Cut(hole, "-"); ok {
		least, _ := strconv.ParseInt(low, 10, 64)
		most, _ := strconv.ParseInt(high, 10, 64)
		if n < least || n > most {
			return fmt.Errorf("%d is not from %d to %d", n, least, most)
		}
		return nil
	}
	_, name, named := strings.Cut(hole, ":")
	if !named {
		return nil
	}
	if changed, ok := strings.CutPrefix(name, "!"); ok {
		name = changed
		if old, _ := strconv.ParseInt(g.numbers[name], 10, 64); n <= old {
			return fmt.Errorf("%d is not greater than %d, which <n:%s> was", n, old, name)
		}
	} else if old, known := g.numbers[name]; known && old != value {
		return fmt.Errorf("%s is not %s, which <n:%s> was", value, old, name)
	}
	g.numbers[name] = value
	return nil
}

// verb plays "alice connects" and the like.
func (g *goldenRun) verb(name, verb string) {
	g.t.Helper()
	switch verb {
	case "connects":
		g.clients[name] = g.target().Connect()
	case "leaves":
		g.client(name).Conn.Close()
		delete(g.clients, name)
	case "ended":
		if line, err := g.client(name).ReadErr(); err == nil {
			g.fail("got %s, want the end of the connection", line)
		}
		delete(g.clients, name)
	}
}

// serverLine plays what a script has the server do.
func (g *goldenRun) serverLine(line string) {
	g.t.Helper()
	if line == "server restarts" {
		g.server = g.running().restart()
		g.clients = map[string]*wire.Client{}
		return
	}
	room, ok := strings.CutPrefix(line, "server dooms ")
	if !ok {
		g.fail("what is %q?", line)
	}
	if err := g.running().rooms.find(room).doom(); err != nil {
		g.fail("%v", err)
	}
}

// nothingLeft checks that every line that came was expected.
func (g *goldenRun) nothingLeft() {
	g.t.Helper()
	for name, c := range g.clients {
		if left := c.Barrier(); len(left) > 0 {
			g.t.Errorf("%s: %s also got %q", g.file, name, left)
		}
	}
}

// tidyUp takes away what would be in another script's way: the rooms that the
// script's clients made, and themselves.
func (g *goldenRun) tidyUp(lines []string) {
	g.t.Helper()
	for _, c := range g.clients {
		c.Send("#changeroom Home")
		c.Barrier()
	}
	for _, line := range lines {
		name, room, made := strings.Cut(line, "> #createroom ")
		if c := g.clients[name]; made && c != nil {
			c.Send("#rmroom " + room)
			c.Barrier()
		}
	}
	for _, c := range g.clients {
		c.Send("#quit")
		for err := error(nil); err == nil; { // the end says that the name is free
			_, err = c.ReadErr()
		}
	}
}

// TestEveryCommandIsInAScript fails when a command is added without a session
// that shows it.
func TestEveryCommandIsInAScript(t *testing.T) {
	sent := map[string]bool{}
	for _, lines := range goldenScripts(t) {
		for _, line := range lines {
			if m := goldenSend.FindStringSubmatch(line); m != nil {
				command, _, _ := strings.Cut(m[3], " ")
				sent[command] = true
			}
		}
	}
	for _, c := range commandRows() {
		if !sent[c.name] {
			t.Errorf("no script in testdata sends %s", c.name)
		}
	}
}

// TestEveryStatusIsInAScript holds the scripts against the status codes of the
// protocol page, but for those that need a fault (-1), an overload (3006) or
// an administrator.
func TestEveryStatusIsInAScript(t *testing.T) {
	seen := map[string]bool{}
	for _, lines := range goldenScripts(t) {
		for _, line := range lines {
			if _, status, ok := strings.Cut(line, "< @status "); ok {
				seen[status] = true
			}
		}
	}
	for _, code := range []status{
		statusOK, statusLimit, statusNotFound, statusInvalidName, statusNotEmpty,
		statusNoUserType, statusNoAccount, statusWrongPassword, statusNameInUse, statusNameTaken,
		statusNoRoom, statusRoomPassword, statusRoomNameUsed, statusNotOwner,
		statusNoGroup, statusGroupPassword, statusNoLogin, statusNoGuests, statusNoCommand,
		statusDeleting, statusBadArgs, statusFlood, statusDisabled,
	} {
		if !seen[strconv.Itoa(int(code))] {
			t.Errorf("no script in testdata gets @status %d", code)
		}
	}
}
