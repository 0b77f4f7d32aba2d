package main

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/test/wire"
)

// inGroup starts a server with a user in the group "talk".
func inGroup(t *testing.T, change ...func(*config)) (*testServer, *wire.Client) {
	t.Helper()
	srv := startServer(t, change...)
	alice := srv.Guest("alice")
	alice.Ask(`#creategroup talk "" anon`, "@status 0")
	alice.Ask("#joingroup talk", "@status 0")
	return srv, alice
}

func TestPartsOf(t *testing.T) {
	limited, unlimited := &server{}, &server{}
	limited.live.Store(&config{})
	limited.settings().Limits.MessageParts = 200
	unlimited.live.Store(&config{})
	for words, want := range map[string]int{
		"":                              0,
		"heading":                       1,
		"heading 5":                     1,
		"heading x":                     1,
		"heading 0 1":                   1,
		"heading 0 200":                 200,
		"heading 0 201":                 0,
		"heading 0 0":                   0,
		"heading 0 -1":                  0,
		"heading 0 x":                   0,
		"heading 0 +2":                  2,
		"heading 0 002":                 2,
		"heading x 2 y":                 2,
		"- 0 2 0 more":                  2,
		"heading 0 9223372036854775808": 0,
	} {
		if got := limited.partsOf(strings.Fields(words)); got != want {
			t.Errorf("%q: %d lines follow, want %d", words, got, want)
		}
	}
	if got := unlimited.partsOf([]string{"heading", "0", "10000"}); got != 10_000 {
		t.Errorf("without a limit %d lines follow, want 10000", got)
	}
}

func TestParsePost(t *testing.T) {
	for words, want := range map[string]postArgs{
		"heading":         {},
		"heading 5":       {parent: 5},
		"heading 5 2":     {parent: 5},
		"heading 5 2 0":   {parent: 5},
		"heading 0 2 60":  {secs: 60},
		"heading -1 2":    {parent: -1}, // no such parent
		"heading 5 2 -0":  {parent: 5},
		"heading +5 2 +0": {parent: 5},
	} {
		want.heading = "heading"
		if got, err := parsePost(strings.Fields(words)); err != nil || got != want {
			t.Errorf("%q means %+v, %v, want %+v", words, got, err, want)
		}
	}
	for words, want := range map[string]status{
		"heading 0 1 -1":        statusBadArgs,
		"heading 0 1 x":         statusBadArgs,
		"heading x":             statusBadArgs,
		"heading 5 1 60":        statusBadArgs,
		"heading 0 1 60 sec":    statusBadArgs,
		"- 0 1":                 statusInvalidName,
		"- x 1":                 statusBadArgs,
		strings.Repeat("h", 31): statusInvalidName,
	} {
		if got, err := parsePost(strings.Fields(words)); !isStatus(err, want) {
			t.Errorf("%q means %+v, %v, want @status %d", words, got, err, want)
		}
	}
}

// TestPartsLimit is the edge of a message's lines, over the wire.
func TestPartsLimit(t *testing.T) {
	t.Parallel()
	_, alice := inGroup(t)
	alice.Raw("#postmessage full 0 200\r\n" + strings.Repeat("#quit\r\n", 199))
	alice.Ask("last", "@status 0")
	for _, parts := range []string{"201", "0", "-1", "-200", "two", "1.5", `""`, "9223372036854775808"} {
		alice.Ask("#postmessage none 0 "+parts, "@status 3504")
	}
	alice.Send("#listmessages")
	id := splitWords(alice.Barrier()[1], nil)[2]
	alice.Send("#getmessage " + id)
	lines := alice.Barrier()
	if len(lines) != 201 || lines[1] != "#quit" || lines[199] != "#quit" || lines[200] != "last" {
		t.Errorf("the message came back as %.200q", lines)
	}
}

// TestMessageTextIsKept stores lines of every kind and reads them back.
func TestMessageTextIsKept(t *testing.T) {
	t.Parallel()
	_, alice := inGroup(t)
	text := []string{
		"", "   ", "\ttab first", "#quit", "@status 0", "@ret #ping barrier", `"quoted \" text"`, "trailing  ", `back\slash`,
		"é 日本 \U0001f600", strings.Repeat("x", 998), "GET / HTTP/1.1", "",
	}
	alice.Send(fmt.Sprintf("#postmessage all 0 %d", len(text)))
	alice.Send(text...)
	alice.Expect("@status 0")
	alice.Send("#listmessages")
	alice.Expect("@ret #listmessages 1")
	id := splitWords(alice.Read(), nil)[2]
	alice.Send("#getmessage " + id)
	if head := alice.Read(); !strings.HasPrefix(head, "@ret #getmessage all "+strconv.Itoa(len(text))+" "+id+" 0 0 ") {
		t.Errorf("the message begins with %q", head)
	}
	alice.Expect(text...)
}

// TestMessageNumbersAreUnique posts in two groups by turns.
func TestMessageNumbersAreUnique(t *testing.T) {
	t.Parallel()
	srv, alice := inGroup(t)
	bob := srv.Guest("bob")
	bob.Ask(`#creategroup other "" anon`, "@status 0")
	bob.Ask("#joingroup other", "@status 0")
	for range 10 {
		alice.Ask("#postmessage a\r\ntext", "@status 0")
		bob.Ask("#postmessage b\r\ntext", "@status 0")
	}
	var numbers [][]int64
	for _, c := range []*wire.Client{alice, bob} {
		numbers = append(numbers, messageNumbers(c))
		if !slices.IsSorted(numbers[len(numbers)-1]) {
			t.Errorf("messages are listed as %v", numbers)
		}
	}
	all := slices.Concat(numbers...)
	slices.Sort(all)
	if len(slices.Compact(all)) != 20 {
		t.Errorf("numbers are used twice: %v", numbers)
	}
}

// messageNumbers is the numbers of a group's messages, as they are listed.
func messageNumbers(c *wire.Client) (numbers []int64) {
	c.T.Helper()
	c.Send("#listmessages")
	for _, line := range c.Barrier()[1:] {
		n, ok := parseNumber(splitWords(line, nil)[2])
		if !ok {
			c.T.Fatalf("%q has no number", line)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// TestThread replies to a reply to a reply, and lists each step.
func TestThread(t *testing.T) {
	t.Parallel()
	_, alice := inGroup(t)
	const depth = 40
	alice.Ask("#postmessage 0\r\ntext", "@status 0")
	for i := range depth {
		numbers := messageNumbers(alice)
		alice.Ask(fmt.Sprintf("#postmessage %d %d\r\ntext", i+1, numbers[i]), "@status 0")
	}
	numbers := messageNumbers(alice)
	for i, n := range numbers[:depth] {
		alice.Ask(fmt.Sprintf("#listmessages %d", n), "@ret #listmessages 1")
		replies := min(1, depth-1-i)
		alice.Expect(fmt.Sprintf("%d alice %d %d %d 0", i+1, numbers[i+1], n, replies))
	}
	alice.Ask(fmt.Sprintf("#listmessages %d", numbers[depth]), "@ret #listmessages 0")
	alice.Ask("#listmessages 0", "@ret #listmessages 1")
	alice.Barrier()
}

// slowReader is a user whose connection takes only little at a time, so that a
// long reply is still being sent when it has read the first line.
func slowReader(srv *testServer, name string, buffer int) *wire.Client {
	srv.T.Helper()
	c := srv.Guest(name)
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(buffer); err != nil {
		srv.T.Fatal(err)
	}
	if err := srv.findOnline(name).link.(*netLink).conn.(*net.TCPConn).SetWriteBuffer(buffer); err != nil {
		srv.T.Fatal(err)
	}
	c.Ask("#joingroup talk", "@status 0")
	return c
}

// TestLongListIsNotInterrupted broadcasts while a list of 2000 messages is being
// sent: it comes as a whole, and the broadcasts after it.
func TestLongListIsNotInterrupted(t *testing.T) {
	t.Parallel()
	srv, alice := inGroup(t, func(c *config) { c.Persist.Mode = "periodic" })
	heading := strings.Repeat("h", 30)
	alice.Raw(strings.Repeat("#postmessage "+heading+"\ntext\n", 2000))
	alice.Expect(slices.Repeat([]string{"@status 0"}, 2000)...)
	bob := slowReader(srv, "bob", 12<<10)
	bob.Ask("#listmessages", "@ret #listmessages 2000")
	alice.Raw(strings.Repeat("#broadcast hi\n", 200))
	alice.Barrier() // all of it is said
	for i := range 2000 {
		if line := bob.Read(); !strings.HasPrefix(line, heading+" alice ") {
			t.Fatalf("line %d of the list is %q", i, line)
		}
	}
	bob.Expect(slices.Repeat([]string{`@mess #broadcast alice "hi"`}, 200)...)
}

// TestLongMessageIsNotInterrupted does the same with one long message: its reader
// must not be taken for somebody who does not read.
func TestLongMessageIsNotInterrupted(t *testing.T) {
	t.Parallel()
	srv, alice := inGroup(t, func(c *config) { c.Limits.MessageParts = 1000 })
	line := strings.Repeat("x", 900)
	alice.Raw("#postmessage long 0 1000\n" + strings.Repeat(line+"\n", 1000))
	alice.Expect("@status 0")
	id := messageNumbers(alice)[0]
	bob := slowReader(srv, "bob", 64<<10)
	bob.Send(fmt.Sprintf("#getmessage %d", id))
	bob.Read()
	alice.Raw(strings.Repeat("#broadcast hi\n", 20))
	alice.Barrier()
	bob.Expect(slices.Repeat([]string{line}, 1000)...)
	bob.Expect(slices.Repeat([]string{`@mess #broadcast alice "hi"`}, 20)...)
}

// withoutTimes is list lines without the seconds, which go by.
func withoutTimes(lines []string) []string {
	for i, line := range lines {
		if words := splitWords(line, nil); len(words) == 6 {
			lines[i] = strings.Join(words[:5], "|")
		}
	}
	return lines
}

// TestMessagesSurviveRestart compares every list of a few hundred messages in
// threads before and after a restart, in both modes of storing.
func TestMessagesSurviveRestart(t *testing.T) {
	for _, mode := range []string{"commit", "periodic"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			srv, alice := inGroup(t, func(c *config) { c.Persist.Mode = mode })
			for range 60 {
				alice.Ask("#postmessage top 0 2\r\n\r\n  text", "@status 0")
			}
			tops := messageNumbers(alice)
			for i, n := range tops {
				alice.Raw(strings.Repeat(fmt.Sprintf("#postmessage reply %d\ntext\n", n), i%4))
				alice.Expect(slices.Repeat([]string{"@status 0"}, i%4)...)
			}
			ask := func(c *wire.Client) []string {
				c.Send("#listmessages", "#listmessages 0", fmt.Sprintf("#listmessages %d", tops[3]), fmt.Sprintf("#getmessage %d", tops[59]))
				return withoutTimes(c.Barrier())
			}
			before, last := ask(alice), slices.Max(messageNumbers(alice))
			srv = srv.restart()
			alice = srv.Guest("alice")
			alice.Ask("#joingroup talk", "@status 0")
			if after := ask(alice); !slices.Equal(after[:len(after)-3], before[:len(before)-3]) {
				t.Errorf("before the restart\n%q\nand after it\n%q", before, after)
			}
			alice.Ask("#postmessage new\r\ntext", "@status 0")
			if numbers := messageNumbers(alice); numbers[len(numbers)-1] <= last {
				t.Errorf("the numbers go on with %d after %d", numbers[len(numbers)-1], last)
			}
		})
	}
}

// TestMessageLimitIsFreed posts up to the limit; when a message's time is over,
// there is room for another.
func TestMessageLimitIsFreed(t *testing.T) {
	t.Parallel()
	_, alice := inGroup(t, func(c *config) { c.Limits.Messages = 2 })
	alice.Ask("#events on", "@status 0")
	alice.Send("#postmessage stays", "text", "#postmessage ends 0 1 1", "text", "#postmessage more", "text")
	lines := alice.Barrier()
	if len(lines) != 5 || lines[1] != "@status 0" || lines[3] != "@status 0" || lines[4] != "@status -2" {
		t.Fatalf("posting got %q", lines)
	}
	ends := splitWords(lines[2], nil)[3]
	alice.Expect("@mess #deleted talk " + ends)
	alice.Send("#postmessage more", "text", "#postmessage too-many", "text")
	lines = alice.Barrier()
	if len(lines) != 3 || lines[1] != "@status 0" || lines[2] != "@status -2" {
		t.Errorf("posting after that got %q", lines)
	}
}

// TestUnfinishedMessages: what is kept of messages that are not complete is counted off
// when one is complete, is refused, or its user goes, and all of it together has a bound.
func TestUnfinishedMessages(t *testing.T) {
	inBubble(t, func(b *bubble) {
		alice, bob := b.inTalk("10.0.0.1"), b.inTalk("10.0.0.2")
		half := strings.Repeat("x", 512-lineCost)
		alice.Send("#postmessage first 0 2", half, half)
		alice.Expect("@status 0") // 1024 bytes are allowed
		b.unfinished(0)
		alice.Send("#postmessage second 0 4", half, half)
		b.unfinished(1024)
		bob.Send("#postmessage third 0 2", "", half) // one too many: alice holds most
		bob.Expect("@status 0")
		b.unfinished(0)
		alice.Send("", half)
		alice.Expect("@status -2")
		alice.Send("#postmessage fourth 0 3", half, half)
		b.unfinished(1024)
		alice.Send("x")
		alice.Expect("@status -2") // nobody holds more than she does herself
		alice.Send("#postmessage fifth 0 3", half, half)
		b.unfinished(1024)
		alice.Conn.Close()
		b.unfinished(0)
	}, func(c *config) { c.Limits.UnfinishedKiB, c.Limits.UnfinishedKiBEach = 1, 0 })
}

// TestUnfinishedShare: one address has a bound of its own, at which the largest of its
// messages is given up, and takes nothing from others; 0 switches it off.
func TestUnfinishedShare(t *testing.T) {
	inBubble(t, func(b *bubble) {
		hostile, hostile2 := b.inTalk("10.0.0.1"), b.inTalk("10.0.0.1")
		victim := b.inTalk("10.0.0.2")
		half := strings.Repeat("x", 512-lineCost)
		victim.Send("#postmessage mine 0 3", half, half)
		b.unfinished(1024)
		hostile.Send("#postmessage large 0 3", half, strings.Repeat("x", 256-lineCost))
		b.unfinished(1024 + 768)
		hostile2.Send("#postmessage small 0 2", strings.Repeat("x", 256-lineCost))
		b.unfinished(2048) // each is at its bound
		hostile2.Send("")
		hostile2.Expect("@status 0")
		hostile.Send("")
		hostile.Expect("@status -2")
		b.unfinished(1024)
		b.settings().Limits.UnfinishedKiBEach = 0
		hostile.Send("#postmessage larger 0 3", half, half, half)
		hostile.Expect("@status 0")
		b.settings().Limits.UnfinishedKiBEach = 2
		victim.Send("")
		victim.Expect("@status 0")
		b.unfinished(0)
	}, func(c *config) { c.Limits.UnfinishedKiB, c.Limits.UnfinishedKiBEach = 0, 1 })
}

// TestUnfinishedAccounts: an account has a share of its own, whatever is at its address.
func TestUnfinishedAccounts(t *testing.T) {
	inBubble(t, func(b *bubble) {
		guest, member := b.inTalk("127.0.0.1"), b.dial()
		guest.Ask("#createlogin member password Member -", "@status 0")
		member.Ask("#login regd member password", "@status 0")
		member.Ask("#joingroup talk", "@status 0")
		half := strings.Repeat("x", 512-lineCost)
		guest.Send("#postmessage a 0 3", half, half)
		b.unfinished(1024)
		member.Send("#postmessage b 0 2", half, half)
		member.Expect("@status 0")
		guest.Send("#postmessage is a line")
		guest.Expect("@status -2")
	}, func(c *config) { c.Limits.UnfinishedKiBEach = 1 })
}

// TestUnfinishedTime: a message for which no line comes for a minute is given up: nothing
// is kept of it, and its last line is answered -2. Every line starts the minute anew.
func TestUnfinishedTime(t *testing.T) {
	inBubble(t, func(b *bubble) {
		alice, bob := b.inTalk("10.0.0.1"), b.inTalk("10.0.0.2")
		alice.Send("#postmessage slow 0 4", "one")
		b.pass(30 * time.Second)
		bob.Send("#postmessage silent 0 2", "1")
		b.pass(29900 * time.Millisecond)
		alice.Send("two")
		b.pass(59900 * time.Millisecond) // bob's has been over for long
		b.unfinished(2 * (3 + lineCost))
		alice.Send("three")
		bob.Send("2")
		bob.Expect("@status -2")
		alice.Send("four")
		alice.Expect("@status 0")
		alice.Send("#postmessage none 0 1")
		b.pass(time.Minute)
		alice.Send("#whoami") // still a line of it, not a command
		alice.Expect("@status -2")
		alice.Ask("#ping", "@ret #ping")

		b.settings().Limits.UnfinishedTime = duration{}
		alice.Send("#postmessage off 0 2", "one")
		b.pass(time.Hour)
		alice.Send("two")
		alice.Expect("@status 0")
	})
}

// inTalk connects a guest from an address, and leads it to the group talk.
func (b *bubble) inTalk(address string) *wire.Client {
	b.t.Helper()
	c := b.dialFromGuest(address)
	c.Send(`#creategroup talk "" anon`)
	c.Read() // the first one makes it
	c.Ask("#joingroup talk", "@status 0")
	return c
}

// unfinished checks how many bytes are kept of messages that are not complete.
func (b *bubble) unfinished(want int64) {
	b.t.Helper()
	if synctest.Wait(); b.messages.unfinished.held() != want {
		b.t.Errorf("%d bytes are unfinished, want %d", b.messages.unfinished.held(), want)
	}
}

func TestTimeToLive(t *testing.T) {
	srv := &server{}
	srv.live.Store(&config{})
	srv.settings().Expiry.Max = duration{time.Hour}
	for _, c := range []struct {
		words string
		usual time.Duration
		want  time.Duration
	}{
		{"", time.Minute, time.Minute},
		{"0", time.Minute, time.Minute},
		{"", 0, time.Hour}, // for ever is capped too
		{"", 2 * time.Hour, time.Hour},
		{"1", time.Minute, time.Second},
		{"3600", time.Minute, time.Hour},
		{"3601", time.Minute, time.Hour},
		{"9223372036854775807", time.Minute, time.Hour},
		{"99999999999999999999", time.Minute, time.Hour},
	} {
		secs, err := secondsAt(strings.Fields(c.words), 0)
		if got := srv.timeToLive(secs, c.usual); err != nil || got != c.want {
			t.Errorf("%q with usually %v: %v, %v, want %v", c.words, c.usual, got, err, c.want)
		}
	}
	for _, word := range []string{"-1", "x", "1s", ""} {
		if got, err := secondsAt([]string{word}, 0); !isStatus(err, statusBadArgs) {
			t.Errorf("%q: %v, %v, want 3504", word, got, err)
		}
	}
	srv.settings().Expiry.Max = duration{}
	if got := srv.timeToLive(0, 0); got != 0 {
		t.Errorf("without a limit: %v, want for ever", got)
	}
}

// TestGroupStatusNumbers checks that a group's number is its own.
func TestGroupStatusNumbers(t *testing.T) {
	t.Parallel()
	srv, alice := inGroup(t)
	bob := srv.Guest("bob")
	bob.Ask(`#creategroup other "" anon`, "@status 0")
	bob.Ask("#joingroup other", "@status 0")
	alice.Send("#messagestatus")
	before := alice.Read()
	bob.Ask("#postmessage x\r\ntext", "@status 0")
	alice.Ask("#messagestatus", before)
	alice.Ask("#joingroup other", "@status 0")
	alice.Ask("#joingroup talk", "@status 0")
	alice.Ask("#leavegroup", "@status 0")
	alice.Ask("#messagestatus", "@status 3200")
	alice.Ask("#joingroup talk", "@status 0")
	alice.Ask("#messagestatus", before)
	alice.Send("#postmessage x", "text", "#messagestatus")
	alice.Expect("@status 0")
	if after := alice.Read(); after == before {
		t.Errorf("%s did not change with a message", after)
	}
}

// TestRmMessageAudited: what an administrator deletes of somebody else's is in the log,
// what a poster deletes is not, and the mark of a guest is nobody else's.
func TestRmMessageAudited(t *testing.T) {
	log := captureLog(t)
	ts := startServer(t)
	root, bob := ts.admin("root"), ts.Guest("bob")
	bob.Ask(`#creategroup talk "" anon`, "@status 0")
	for _, c := range []*wire.Client{root, bob} {
		c.Ask("#joingroup talk", "@status 0")
	}
	own, others := bob.Post("own", 0, 0), bob.Post("other", 0, 0)
	bob.Ask(fmt.Sprintf("#rmmessage %d", own), "@status 0")
	root.Ask(fmt.Sprintf("#rmmessage %d", others), "@status 0")
	root.Barrier()
	if text := log.String(); strings.Contains(text, fmt.Sprintf("#rmmessage %d,", own)) ||
		!strings.Contains(text, fmt.Sprintf(`by=root from=127.0.0.1 command="#rmmessage %d, by bob in talk"`, others)) {
		t.Errorf("the log is\n%s", text)
	}
	guest, next := &identity{token: "g1"}, &identity{token: "g2"}
	one := &identity{account: &account{id: 1}}
	if guest.mark() == next.mark() || one.mark() == guest.mark() || one.mark() != "1" {
		t.Errorf("marks are %q, %q, %q", guest.mark(), next.mark(), one.mark())
	}
}
