package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"homeroom/test/wire"
)

// kills is how often TestKill9 kills the server: go test -run TestKill9 ./test -kills=200.
var kills = flag.Int("kills", 3, "how often TestKill9 kills the server")

// fate is what a test knows of something that it asked the server to store.
type fate uint8

const (
	unsure  fate = iota // asked for, and not answered
	present             // answered: it is there
	absent              // answered: it is deleted
)

// crashMessage is a message that a worker posted.
type crashMessage struct {
	fate          fate
	group, parent string // names; the parent's heading
	id            int64  // 0: not known
	read          bool   // its text was compared
}

// crashWorker is one client of the crash test, with all that it ever asked for.
// Between two rounds it belongs to the test, in one to its goroutine.
type crashWorker struct {
	*wire.Client
	number       int
	random       *rand.Rand
	account      string // it is logged in to
	made         int    // names given so far
	acknowledged int    // changes
	passwords    map[string][]string
	accounts     map[string]fate
	rooms        map[string]fate
	groups       map[string]fate
	messages     map[string]*crashMessage // by heading
	seen         map[int64]string         // numbers that the server gave, and their headings
	known        []string                 // headings in the group that can be answered
	group        string                   // it is in
	entered      bool                     // it has done what a round begins with
	lossy        bool                     // what is acknowledged can be lost
	lateLost     bool                     // what is acknowledged after the cut has begun can be
	status       int64                    // the largest status number that it was told
	progress     chan<- struct{}
	killed       *atomic.Bool
	mayFail      []string // how a change may be refused: the disk is made to fail
	refused      int      // changes that were
	gone         bool     // its connection ended
}

// name makes a name that was never used before.
func (w *crashWorker) name(kind string) string {
	w.made++
	return fmt.Sprintf("%s%dx%d", kind, w.number, w.made)
}

// request sends a line and returns the lines up to its reply; false: the server
// is gone.
func (w *crashWorker) request(line string) (lines []string, ok bool) {
	if _, err := w.Conn.Write([]byte(line + "\r\n")); err != nil {
		return nil, w.lost(err)
	}
	for {
		got, err := w.ReadErr()
		if err != nil {
			return nil, w.lost(err)
		}
		lines = append(lines, got)
		if !strings.HasPrefix(got, "@mess ") {
			return lines, true
		}
	}
}

// lost is the end of a worker's round: a failure unless the server was killed.
func (w *crashWorker) lost(err error) bool {
	w.gone = true
	if !w.killed.Load() {
		w.T.Errorf("worker %d lost its connection before the kill: %v", w.number, err)
	}
	return false
}

// change asks for something to be stored; true: the server says that it is.
func (w *crashWorker) change(line string) bool {
	lines, ok := w.request(line)
	if !ok {
		return false
	}
	if w.lateLost && w.killed.Load() {
		return false
	}
	for _, got := range lines {
		w.notePosted(got)
	}
	if last := lines[len(lines)-1]; last != "@status 0" {
		if w.refused++; !slices.Contains(w.mayFail, last) {
			w.T.Errorf("%.60q was answered %q", line, last)
		}
		return false
	}
	w.acknowledged++
	select {
	case w.progress <- struct{}{}:
	default: // the test has seen enough and is about to kill
	}
	return true
}

// notePosted learns a message's number from the event that comes with it.
func (w *crashWorker) notePosted(line string) {
	words := wire.Words(line)
	if len(words) != 7 || words[1] != "#posted" {
		return
	}
	if m := w.messages[words[6]]; m != nil {
		m.id = number(words[3])
		w.seen[m.id] = words[6]
	}
}

// work asks for one change after the other until the server is killed.
func (w *crashWorker) work() {
	if !w.enter() {
		return
	}
	for w.step() {
	}
}

// step asks for one change, or status numbers; false: it failed.
func (w *crashWorker) step() bool {
	switch n := w.random.IntN(20); {
	case n < 11:
		return w.post("m")
	case n < 13:
		return w.createRoom()
	case n < 15:
		return w.removeRoom()
	case n < 16:
		return w.createAccount()
	case n < 18:
		return w.changePassword()
	default:
		return w.askStatus()
	}
}

// enter makes the round's account and group.
func (w *crashWorker) enter() bool {
	_, ok := w.request("#login anon guest" + strconv.Itoa(w.number))
	if !ok || !w.createAccount() {
		return false
	}
	if !w.change("#login regd "+w.account+" "+w.passwords[w.account][0]) || !w.change("#events on") {
		return false
	}
	w.group = w.name("g")
	w.groups[w.group], w.known = unsure, nil
	if !w.change("#creategroup " + w.group + ` "" anon 0`) {
		return false
	}
	w.groups[w.group] = present
	return w.change("#joingroup " + w.group)
}

func (w *crashWorker) createAccount() bool {
	name := w.name("a")
	w.accounts[name], w.passwords[name] = unsure, []string{"first"}
	if !w.change("#createlogin " + name + ` first "Real Name" mail@example.org`) {
		return false
	}
	w.accounts[name] = present
	if w.group == "" {
		w.account = name
	}
	return true
}

func (w *crashWorker) changePassword() bool {
	old, fresh := w.passwords[w.account][0], w.name("p")
	w.passwords[w.account] = append([]string{fresh}, w.passwords[w.account]...)
	if !w.change("#changepass " + fresh + " " + old) {
		w.passwords[w.account] = append([]string{old}, w.passwords[w.account]...) // it is still the one to use
		return false
	}
	if !w.lossy {
		w.passwords[w.account] = []string{fresh}
	}
	return true
}

func (w *crashWorker) createRoom() bool {
	name := w.name("r")
	w.rooms[name] = unsure
	if !w.change("#createroom " + name) {
		return false
	}
	w.rooms[name] = present
	return true
}

// removeRoom deletes a room of this round, if there is one.
func (w *crashWorker) removeRoom() bool {
	name := fmt.Sprintf("r%dx%d", w.number, w.made)
	if w.rooms[name] != present {
		return true
	}
	w.rooms[name] = unsure
	if !w.change("#rmroom " + name) {
		return false
	}
	if !w.lossy {
		w.rooms[name] = absent
	}
	return true
}

// post posts a message, two times in three as an answer to another one.
func (w *crashWorker) post(prefix string) bool {
	heading, m, parent := w.name(prefix), &crashMessage{group: w.group}, int64(0)
	if n := w.random.IntN(3*len(w.known)/2 + 1); n < len(w.known) {
		m.parent = w.known[n]
		parent = w.messages[m.parent].id
	}
	w.messages[heading] = m
	if !w.change(fmt.Sprintf("#postmessage %s %d %d\r\n%s", heading, parent, crashLines(heading), crashText(heading))) {
		return false
	}
	m.fate = present
	w.known = append(w.known, heading)
	return true
}

// crashLines is how many lines a message's text has: most two, a big one many.
func crashLines(heading string) int {
	if strings.HasPrefix(heading, "big") {
		return 150
	}
	return 2
}

// crashText is the lines of a message's text.
func crashText(heading string) string {
	text := "the text of " + heading
	for n := crashLines(heading); n > 2; n-- {
		text += "\r\n" + strings.Repeat("x", 900)
	}
	return text + "\r\n#and its last line"
}

// askStatus remembers the status numbers that the server gives.
func (w *crashWorker) askStatus() bool {
	for _, what := range []string{"arch", "room", "user", "message", "group"} {
		lines, ok := w.request("#" + what + "status")
		if !ok {
			return false
		}
		n := wire.StatusNumber(w.T, lines[len(lines)-1])
		w.status = max(w.status, n)
	}
	return true
}

// crashTest is a server that is killed again and again.
type crashTest struct {
	t       *testing.T
	path    string
	data    string
	args    []string
	cut     func(*program) // ends a server at once, in a power cut, say
	workers []*crashWorker
	ids     map[int64]string // every message number that was ever seen, and its heading
	random  *rand.Rand
	lossy   bool // what is acknowledged can be lost
	lost    int  // how much was
}

// TestKill9 kills a server that is storing what several clients ask for. What
// was answered @status 0 is there afterwards, and nothing is that was not asked
// for; no number is given twice.
func TestKill9(t *testing.T) {
	t.Parallel()
	killAgainAndAgain(t, programSettings, false)
}

// TestKill9Periodic: in periodic mode what was done last may be lost, but
// nothing else goes wrong.
func TestKill9Periodic(t *testing.T) {
	t.Parallel()
	killAgainAndAgain(t, programSettings+"[persist]\nmode = \"periodic\"\nevery = \"50ms\"\n", true)
}

func killAgainAndAgain(t *testing.T, settings string, lossy bool) {
	c := newCrashTest(t, buildProgram(t), settings, t.TempDir(), lossy)
	for range *kills {
		if c.round(); t.Failed() {
			return
		}
	}
	c.finish("kills", *kills)
}

// newCrashTest makes the workers and all that is to be known of them.
func newCrashTest(t *testing.T, path, settings, data string, lossy bool) *crashTest {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &crashTest{
		t: t, path: path, data: data, lossy: lossy, ids: map[int64]string{}, random: rand.New(rand.NewPCG(seed, 0)),
		args: []string{"-config", writeSettings(t, settings), "-data", data}, cut: (*program).kill,
	}
	for i := range 6 {
		c.workers = append(c.workers, &crashWorker{
			number: i, lossy: lossy, random: rand.New(rand.NewPCG(seed, uint64(i)+1)),
			passwords: map[string][]string{}, seen: map[int64]string{},
			accounts: map[string]fate{}, rooms: map[string]fate{}, groups: map[string]fate{}, messages: map[string]*crashMessage{},
		})
	}
	return c
}

// finish checks everything once more and says what was done.
func (c *crashTest) finish(what string, times int) {
	p := startProgram(c.t, c.path, c.args...)
	c.verify(p, true)
	if code := p.terminate(); code != exitDone {
		c.t.Errorf("the last stop: exit code %d", code)
	}
	wantWhole(c.t, c.data)
	changes := 0
	for _, w := range c.workers {
		changes += w.acknowledged
	}
	c.t.Logf("%d %s, %d acknowledged changes, %d messages, %d things lost", times, what, changes, len(c.ids), c.lost)
}

// wantWhole expects a stopped server's database to be whole.
func wantWhole(t testing.TB, folder string) {
	t.Helper()
	db := openBeside(t, folder)
	defer db.Close()
	var result string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		t.Errorf("the database is not whole: %q (%v)", result, err)
	}
}

// round starts the server, checks what the last kill left, lets the workers
// work and kills it.
func (c *crashTest) round() {
	if c.random.IntN(4) == 0 { // a kill while it starts
		p := launch(c.t, c.path, c.args...)
		time.Sleep(time.Duration(c.random.IntN(60)) * time.Millisecond)
		c.cut(p)
	}
	p := startProgram(c.t, c.path, c.args...)
	c.verify(p, false)
	progress := make(chan struct{}, 1000)
	var running sync.WaitGroup
	killed := new(atomic.Bool)
	for _, w := range c.workers {
		w.Client, w.progress, w.killed, w.group = p.Dial(), progress, killed, ""
		running.Go(w.work)
	}
	for range 10 + c.random.IntN(300) {
		select {
		case <-progress:
		case <-time.After(wire.Patience):
			c.t.Errorf("no change is stored any more")
		}
	}
	time.Sleep(time.Duration(c.random.IntN(3000)) * time.Microsecond) // any moment, not only after a reply
	killed.Store(true)
	c.cut(p)
	running.Wait()
	c.disconnect()
}

// noteNumber remembers a message's number; it must not have been another one's.
func (c *crashTest) noteNumber(id int64, heading string) {
	if old := c.ids[id]; old != "" && old != heading {
		c.t.Errorf("message %d is %s now; it was %s", id, heading, old)
	}
	c.ids[id] = heading
}

// verify compares the server with what the workers know; what they were unsure
// of must stay as it is found. all: every group is read, not only the last ones.
func (c *crashTest) verify(p *program, all bool) {
	v := p.Guest("verifier")
	defer v.Conn.Close()
	c.verifyStatus(v)
	c.verifyList(v, "#listrooms", 1, func(w *crashWorker) map[string]fate { return w.rooms })
	counts := c.verifyList(v, "#listgroups", 0, func(w *crashWorker) map[string]fate { return w.groups })
	for _, w := range c.workers {
		for name, f := range w.groups {
			if f == present && (all || name == w.group) {
				c.verifyGroup(v, w, name, counts[name])
			}
		}
		c.verifyAccounts(p, w, all)
	}
}

// verifyStatus: no status number is one that was given before the kill.
func (c *crashTest) verifyStatus(v *wire.Client) {
	for _, what := range []string{"arch", "room", "user", "group"} {
		v.Send("#" + what + "status")
		n := wire.StatusNumber(c.t, v.Read())
		for _, w := range c.workers {
			if n <= w.status {
				c.t.Errorf("#%sstatus is %d; before the kill there was %d", what, n, w.status)
			}
		}
	}
}

// verifyList compares a listing of rooms or groups, but for the first skip
// lines, and returns the fourth word of each: a group's messages.
func (c *crashTest) verifyList(v *wire.Client, command string, skip int, of func(*crashWorker) map[string]fate) map[string]string {
	v.Send(command)
	n := number(wire.Words(v.Read())[2])
	found := map[string]string{}
	for i := range int(n) {
		if words := wire.Words(v.Read()); i >= skip {
			found[words[0]] = words[3]
		}
	}
	known := 0
	for _, w := range c.workers {
		for name, f := range of(w) {
			of(w)[name] = c.settle(f, found[name] != "", name)
			if found[name] != "" {
				known++
			}
		}
	}
	if known != len(found) {
		c.t.Errorf("%s shows %d names, of which %d were ever asked for", command, len(found), known)
	}
	return found
}

// settle compares what is known of something with whether it is there.
func (c *crashTest) settle(f fate, there bool, name string) fate {
	if f == present && !there {
		if c.lost++; !c.lossy {
			c.t.Errorf("%s was acknowledged and is gone", name)
		}
	}
	if f == absent && there {
		c.t.Errorf("%s was deleted, or was not there after an earlier kill, and is there", name)
	}
	if there {
		return present
	}
	return absent
}

// verifyGroup compares the messages of one of a worker's groups.
func (c *crashTest) verifyGroup(v *wire.Client, w *crashWorker, group, count string) {
	v.Ask("#joingroup "+group, "@status 0")
	v.Send("#listmessages")
	n := wire.Words(v.Read())[2]
	if n != count {
		c.t.Errorf("%s: listed with %s messages, it has %s", group, count, n)
	}
	lines := number(n)
	found, replies := map[string]string{}, map[string]int{}
	for range lines {
		words := wire.Words(v.Read()) // heading owner id parent replies secs
		found[words[0]] = words[4]
		c.verifyMessage(w, group, words)
		if parent := number(words[3]); parent != 0 {
			replies[c.ids[parent]]++
		}
	}
	for heading, m := range w.messages {
		if m.group != group {
			continue
		}
		if m.fate = c.settle(m.fate, found[heading] != "", heading); m.fate == present {
			if found[heading] != strconv.Itoa(replies[heading]) {
				c.t.Errorf("%s counts %s replies, it has %d", heading, found[heading], replies[heading])
			}
			c.readMessage(v, heading, m, found[heading])
		}
	}
}

// verifyMessage checks one line of a list of messages.
func (c *crashTest) verifyMessage(w *crashWorker, group string, words []string) {
	m, id := w.messages[words[0]], int64(0)
	if m == nil || m.group != group {
		c.t.Errorf("%s has the message %q, which nobody posted there", group, words[0])
		return
	}
	id = number(words[2])
	if m.id != 0 && m.id != id {
		c.t.Errorf("%s has number %d; it had %d", words[0], id, m.id)
	}
	m.id = id
	c.noteNumber(id, words[0])
	if parent := number(words[3]); c.ids[parent] != m.parent {
		c.t.Errorf("%s answers %q, want %q", words[0], c.ids[parent], m.parent)
	}
}

// readMessage compares a message's text, once.
func (c *crashTest) readMessage(v *wire.Client, heading string, m *crashMessage, replies string) {
	if m.read {
		return
	}
	m.read = true
	v.Send(fmt.Sprintf("#getmessage %d", m.id))
	head := wire.Words(v.Read())
	lines := crashLines(heading)
	if len(head) != 8 || head[2] != heading || head[3] != strconv.Itoa(lines) || head[6] != replies {
		c.t.Errorf("#getmessage %d: got %q, want %s with %d lines and %s replies", m.id, head, heading, lines, replies)
		return
	}
	text := v.Read()
	for range lines - 1 {
		text += "\r\n" + v.Read()
	}
	if text != crashText(heading) {
		c.t.Errorf("the text of %s is %.200q", heading, text)
	}
}

// verifyAccounts logs in to a worker's accounts: to those of the last round, or
// to all.
func (c *crashTest) verifyAccounts(p *program, w *crashWorker, all bool) {
	v := p.Dial()
	defer v.Conn.Close()
	for name, f := range w.accounts {
		if f != unsure && name != w.account && !all {
			continue
		}
		w.accounts[name] = c.verifyAccount(v, name, f, w)
	}
}

// verifyAccount tries the passwords that an account can have.
func (c *crashTest) verifyAccount(v *wire.Client, name string, f fate, w *crashWorker) fate {
	for _, password := range w.passwords[name] {
		v.Send("#login regd " + name + " " + password)
		switch got := v.Read(); got {
		case "@status 0":
			w.passwords[name] = []string{password}
			return c.settle(f, true, name)
		case "@status 3001":
			return c.settle(f, false, name)
		case "@status 3002":
		default:
			c.t.Errorf("logging in to %s: %q", name, got)
		}
	}
	c.t.Errorf("%s: no password is right of those that it can have: %q", name, w.passwords[name])
	return f
}

// number is a number that a server shows.
func number(word string) int64 {
	n, _ := strconv.ParseInt(word, 10, 64)
	return n
}
