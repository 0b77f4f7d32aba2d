package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"homeroom/store"
	"homeroom/test/wire"
)

// adminWords is, of each of B4's commands, words with which it does something, and
// the first line of what an administrator is answered; "" is for what ends the
// server, which TestOrders has.
var adminWords = map[string][2]string{
	"#accounts": {"", "@ret #accounts "}, "#stats": {"", "@ret #stats "}, "#kick": {" nobody", "@status -3"},
	"#ban": {" 192.0.2.1", "@status 0"}, "#unban": {" 192.0.2.1", "@status 0"}, "#listbans": {"", "@ret #listbans 0"},
	"#announce": {" tea", `@mess #announce root "tea"`}, "#suspend": {" 1", `@mess #announce root "the server is suspended for 1 min"`},
	"#who": {"", "@ret #who 1"},
	"#log": {"", "@ret #log 0"}, "#watchlog": {" off", "@status 0"},
	"#reload": {"", `@mess #warning "this server cannot`},
	"#resume": {"", `@mess #announce root "the server is open again"`}, "#role": {" alice user", "@status 0"},
	"#resetpass": {" alice other", "@status 0"}, "#adduser": {" dora other Dora d@example.org", "@status 0"}, "#rmuser": {" alice", "@status 0"},
	"#rmgroup":  {" nothing", "@status -3"},
	"#shutdown": {"", ""}, "#restart": {"", ""}, "#reboot": {"", "@status 3508"}, "#poweroff": {"", "@status 3508"},
}

// TestAdminCommands: every command of B4 works for an administrator and is refused
// to users, guests and those who have not logged in; and the log says so.
func TestAdminCommands(t *testing.T) {
	log := captureLog(t)
	ts := startServer(t)
	root, alice, guest, nobody := ts.admin("root"), ts.Member("alice"), ts.Guest("guest"), ts.Dial()
	for _, c := range commandRows() {
		if c.who != forAdmins {
			continue
		}
		test, ok := adminWords[c.name]
		if !ok {
			t.Errorf("no test of %s", c.name)
			continue
		}
		for who, other := range map[string]*wire.Client{"alice": alice, "guest": guest} {
			other.Ask(c.name+test[0], "@status 3506")
			if want := fmt.Sprintf("command=%s user=%s from=127.0.0.1", c.name, who); !strings.Contains(log.String(), want) {
				t.Errorf("the log does not have %q", want)
			}
		}
		nobody.Ask(c.name+test[0], "@status 3500")
	}
	alice.Ask("#quit", "@status 0")
	guest.Ask("#quit", "@status 0")
	for _, c := range commandRows() {
		test := adminWords[c.name]
		if c.who != forAdmins || test[1] == "" {
			continue
		}
		root.Send(c.name + test[0])
		if got := root.Read(); !strings.HasPrefix(got, test[1]) {
			t.Errorf("%s: %q, want %q", c.name, got, test[1])
		}
		root.Barrier()
		logged := strings.Contains(log.String(), "command=\""+c.name) || strings.Contains(log.String(), "by=root from=127.0.0.1 command="+c.name)
		if done := test[1] != "@status -3" && test[1] != "@status 3508" && c.name != "#reload"; logged != (c.audit > 0 && done) {
			t.Errorf("%s is in the log: %v", c.name, logged)
		}
	}
	if strings.Contains(log.String(), "other") {
		t.Error("a password is in the log")
	}
}

// TestBannedAddress: users from a banned network are disconnected, and get 3005 later;
// the operator is not kept out.
func TestBannedAddress(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	alice, waiting, host := ts.Guest("alice"), ts.Dial(), ts.dialHost()
	alice.Ask("#createlogin carol right real mail", "@status 0")
	const banned = `@mess #warning "you are banned: no games"`
	host.Ask("#ban 127.0.0.0/8 no games", "@status 0")
	alice.Ended(banned)
	waiting.Ended(banned)
	ts.Dial().Ask("#login anon bob", banned, "@status 3005")
	release := ts.accounts.hasher.hold() // no password is looked at: that would wait
	c := ts.Dial()
	for _, login := range []string{"#login regd carol right", "#login regd carol wrong", "#login regd nobody x", `#auth SCRAM-SHA-256 "n,,n=carol,r=x"`} {
		c.Ask(login, banned, "@status 3005")
	}
	release()
	if n := len(ts.accounts.guesses.byIP); n != 0 {
		t.Errorf("the guesses of %d banned addresses were counted", n)
	}
	host.Ask("#listbans", "@ret #listbans 1", `127.0.0.0/8 0 Host "no games"`)
	host.Ask("#unban 127.9.9.9/8", "@status 0")
	ts.Guest("bob")
}

// TestBansAgainst: networks of all lengths are found, IPv4 in IPv6 too.
func TestBansAgainst(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	add := func(word string) *ban {
		p, ok := parseNetwork(word)
		if !ok {
			t.Fatalf("%q is no network", word)
		}
		b := netBan(p)
		if b.ends = never; ts.bans.add(b, 0) != nil {
			t.Fatalf("%q cannot be banned", word)
		}
		return b
	}
	for _, test := range []struct {
		word string
		hit  []string
		miss []string
	}{
		{"10.0.0.0/8", []string{"10.0.0.0", "10.255.255.255"}, []string{"11.0.0.0", "9.255.255.255", "::a00:0"}},
		{"192.0.2.7", []string{"192.0.2.7"}, []string{"192.0.2.6", "192.0.2.8"}},
		{"::ffff:192.0.2.9", []string{"192.0.2.9"}, []string{"192.0.2.8"}},
		{"::ffff:192.0.2.9/120", []string{"192.0.2.1"}, []string{"192.0.3.1", "::ffff:192.0.2.1"}},
		{"fe80::1%eth0", []string{"fe80::1"}, []string{"fe80::2"}},
		{"2001:db8::/32", []string{"2001:db8::1", "2001:db8:ffff::"}, []string{"2001:db9::", "10.0.0.1"}},
		{"0.0.0.0/0", []string{"1.2.3.4"}, []string{"::1"}},
		{"::/0", []string{"::1"}, []string{"1.2.3.4"}},
	} {
		b := add(test.word)
		for _, addr := range test.hit {
			if got := ts.bans.against("x", netip.MustParseAddr(addr)); got != b {
				t.Errorf("%s: %s is met by %v", test.word, addr, got)
			}
		}
		for _, addr := range test.miss {
			if got := ts.bans.against("x", netip.MustParseAddr(addr)); got != nil {
				t.Errorf("%s: %s is met by %v", test.word, addr, got)
			}
		}
		if err := ts.bans.lift(b.key); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "x", "1.2.3", "1.2.3.4/33", "::ffff:1.2.3.4/95", "fe80::1%", "1.2.3.4/x"} {
		if p, ok := parseNetwork(bad); ok {
			t.Errorf("%q was read as %v", bad, p)
		}
	}
}

// TestBanLimit: past limits.bans, -2; a ban that takes the place of another does
// not count twice, nor does the suspension.
func TestBanLimit(t *testing.T) {
	t.Parallel()
	ts := startServer(t, func(c *config) { c.Limits.Bans = 2 })
	host := ts.dialHost()
	host.Ask("#ban 192.0.2.1", "@status 0")
	host.Ask("#ban 192.0.2.2 60 first", "@status 0")
	host.Ask("#ban 192.0.2.3", "@status -2")
	host.Ask("#ban 192.0.2.2 second", "@status 0")
	host.Ask("#listbans", "@ret #listbans 2", `192.0.2.1 0 Host ""`, `192.0.2.2 0 Host "second"`)
	host.Ask("#suspend 1", `@mess #announce Host "the server is suspended for 1 min"`, "@status 0")
	host.Ask("#suspend 2", `@mess #announce Host "the server is suspended for 2 min"`, "@status 0")
	ts = ts.restart()
	ts.dialHost().Ask("#listbans", "@ret #listbans 2", `192.0.2.1 0 Host ""`, `192.0.2.2 0 Host "second"`)
	if b := ts.bans.suspended.Load(); b == nil || secondsUntil(b.ends, ts.clock.now()) <= 60 {
		t.Errorf("after a restart the suspension is %+v", b)
	}
	if rows := ts.storedBans(); rows != 3 {
		t.Errorf("%d bans are stored", rows)
	}
}

// storedBans is how many bans are in the database.
func (ts *testServer) storedBans() (n int) {
	ts.T.Helper()
	if err := ts.store.Load(store.Ban, func(store.Record) error { n++; return nil }); err != nil {
		ts.T.Error(err)
	}
	return n
}

// TestBanEnds: a ban and a suspension end by themselves, also where their time ran
// out while the server was off.
func TestBanEnds(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	soon := ts.clock.now() + 30
	for _, key := range []banKey{{what: banName, name: "alice"}, {what: banAll}} {
		if err := ts.bans.add(&ban{key: key, by: "root", ends: soon}, 0); err != nil {
			t.Fatal(err)
		}
	}
	host := ts.dialHost()
	host.Expect(`@mess #announce root "the server is open again"`)
	for ts.storedBans() > 0 { // the name's ban may be the later one
		host.Barrier()
	}
	ts.Guest("alice")
	if err := ts.bans.add(&ban{key: banKey{what: banName, name: "bob"}, by: "root", ends: ts.clock.now() + 1}, 0); err != nil {
		t.Fatal(err)
	}
	ts = ts.restart()
	for host = ts.dialHost(); ts.storedBans() > 0; {
		host.Barrier()
	}
	ts.Guest("bob")
}

// TestManyAccounts: #accounts pages through all of them, each once, in order.
func TestManyAccounts(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	const all = 2500
	for i := range all {
		n := fmt.Sprintf("user%05d", (i*7919)%all)
		ts.users.mu.Lock()
		ts.users.add(&account{id: int64(i + 1), name: name{n, n}})
		ts.users.mu.Unlock()
	}
	host, after, seen := ts.dialHost(), "", 0
	for {
		host.Send(`#accounts "` + after + `" 5000`)
		var n int
		if _, err := fmt.Sscanf(host.Read(), "@ret #accounts %d", &n); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		if n > mostAccounts {
			t.Errorf("%d lines at once", n)
		}
		for range n {
			line := host.Read()
			if after = strings.Fields(line)[0]; after != fmt.Sprintf("user%05d", seen) {
				t.Fatalf("line %d is %q", seen, line)
			}
			seen++
		}
	}
	if seen != all {
		t.Errorf("%d accounts are listed, of %d", seen, all)
	}
}

// TestRoomKickTLS: a session whose reader waits within TLS is moved as well.
func TestRoomKickTLS(t *testing.T) {
	t.Parallel()
	ts := startServer(t, withTLS)
	alice, bob := ts.Guest("alice"), ts.overTLS()
	bob.Ask("#login anon bob", "@status 0")
	alice.Ask("#createroom den", "@status 0")
	for _, c := range []*wire.Client{alice, bob} {
		c.Ask("#changeroom den", "@status 0")
	}
	for range 3 {
		alice.Ask("#roomkick bob", "@status 0")
		bob.Expect(`@mess #warning "you were put out of den by alice"`)
		bob.Ask("#whoami", "@ret #whoami bob Home 1 - 0")
		bob.Ask("#changeroom den", "@status 0")
	}
}

// TestRoomKickIdle: a member that sends nothing is out of the room too.
func TestRoomKickIdle(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	alice, bob := ts.Guest("alice"), ts.Guest("bob")
	alice.Ask("#createroom den", "@status 0")
	for _, c := range []*wire.Client{alice, bob} {
		c.Ask("#changeroom den", "@status 0")
	}
	alice.Ask("#events on", "@status 0")
	alice.Send("#roomkick bob")
	got := map[string]bool{alice.Read(): true, alice.Read(): true}
	if !got["@status 0"] || !got["@mess #left den bob"] {
		t.Errorf("alice got %v", got)
	}
	bob.Expect(`@mess #warning "you were put out of den by alice"`)
	alice.Ask("#broadcast secret", `@mess #broadcast alice "secret"`, "@status 0")
	if left := bob.Barrier(); len(left) > 0 {
		t.Errorf("bob got %q", left)
	}
}

// TestWatchLog: administrators read the log's last lines and then each as it comes;
// who tries what is for administrators shows there; it ends with the role.
func TestWatchLog(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	root, host, log := ts.admin("root"), ts.dialHost(), slog.New(ts.log.Handler())
	log.Info("first", "user", "a\nb")
	log.Info("second")
	root.Ask("#log 1", "@ret #log 1")
	if got := root.Read(); !strings.HasSuffix(got, `msg=second"`) {
		t.Errorf("the last line is %s", got)
	}
	root.Ask("#log", "@ret #log 2")
	if got := root.Read(); !strings.Contains(got, `msg=first user=\"a\\nb\"`) {
		t.Errorf("the first line is %s", got)
	}
	root.Read()
	for _, bad := range []string{"#log 0", "#log many", "#watchlog maybe", "#watchlog"} {
		root.Ask(bad, "@status 3504")
	}
	root.Ask("#watchlog on", "@status 0")
	root.Ask("#watchlog on", "@status 0") // twice is once
	log.Warn("third")
	if got := root.Read(); !strings.HasPrefix(got, "@mess #log \"") || !strings.HasSuffix(got, `msg=third"`) {
		t.Errorf("watching gives %s", got)
	}
	host.Ask("#role root user", "@status 0")
	log.Warn("fourth")
	if left := root.Barrier(); len(left) > 0 {
		t.Errorf("who is no administrator any more is told %q", left)
	}
	host.Ask("#watchlog on", "@status 0")
	log.Warn("fifth")
	if got := host.Read(); !strings.HasSuffix(got, `msg=fifth"`) {
		t.Errorf("the operator is told %s", got)
	}
	host.Ask("#watchlog off", "@status 0")
	log.Warn("sixth")
	if left := host.Barrier(); len(left) > 0 {
		t.Errorf("who watches no more is told %q", left)
	}
}

// TestMeter: rates are over the last ten whole seconds.
func TestMeter(t *testing.T) {
	t.Parallel()
	var m meter
	at := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	for i := range 100 {
		m.add(at(float64(i)/10), 2)
	}
	for _, test := range []struct{ at, want float64 }{{9.9, 18}, {10, 20}, {15.5, 10}, {19.9, 2}, {20, 0}, {1e6, 0}} {
		if got := m.perSecond(at(test.at)); got != test.want {
			t.Errorf("after %v s: %v a second, want %v", test.at, got, test.want)
		}
	}
	m.add(at(2e6), 5)
	if got := m.perSecond(at(2e6 + 1)); got != 0.5 || m.total != 205 {
		t.Errorf("after a long pause: %v a second, %d in all", got, m.total)
	}
}

// TestStats: the figures are there, and those that can be known are right.
func TestStats(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	host, alice := ts.dialHost(), ts.Member("alice")
	alice.Ask("#creategroup news", "@status 0")
	alice.Ask("#joingroup news", "@status 0")
	alice.Send("#postmessage hello")
	alice.Ask("text", "@status 0")
	alice.Ask("#broadcast hello", `@mess #broadcast alice "hello"`, "@status 0")
	ts.Dial().Ask("#login regd alice wrong", "@status 3002")
	if err := store.NoteBackup(ts.cfg.Server.Data); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	host.Send("#stats")
	var n int
	if _, err := fmt.Sscanf(host.Read(), "@ret #stats %d", &n); err != nil {
		t.Fatal(err)
	}
	for range n {
		words := strings.Fields(host.Read())
		if len(words) != 2 {
			t.Fatalf("a line of %d words: %q", len(words), words)
		}
		got[words[0]] = words[1]
	}
	for key, want := range map[string]string{
		"users_online": "1", "accounts": "1", "rooms": "1", "groups": "1", "messages_stored": "1", "messages_sent": "2",
		"logins_refused": "1", "slow_readers_dropped": "0", "bans": "0", "suspended": "0", "connections": "2",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	for _, key := range []string{"bytes_in", "bytes_out", "memory_bytes", "heap_bytes", "goroutines", "database_bytes", "commits", "commit_p50_ms", "commit_p99_ms", "last_backup"} {
		if v := got[key]; v == "" || v == "0" || v == "0.000" {
			t.Errorf("%s is %q", key, v)
		}
	}
}

// TestRoomKickBetweenLines: what somebody said before being put out of a room, in
// the same piece of input as what comes after it, reaches those who are in it.
func TestRoomKickBetweenLines(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	listener := srv.Guest("listener")
	listener.Ask("#createroom den", "@status 0")
	listener.Ask("#changeroom den", "@status 0")
	near, far := net.Pipe()
	s := newSession(srv.server, newNetLink(near))
	defer func() {
		far.Close()
		s.forgetIdentity(nil)
		s.out.close()
	}()
	name, err := userName("victim")
	if err != nil {
		t.Fatal(err)
	}
	s.who.Store(&identity{name: name})
	if err := srv.rooms.enter(srv.findOnline("listener").room(), s, nil); err != nil {
		t.Fatal(err)
	}
	work := &scratch{}
	work.reply.s = s
	for _, line := range []string{"#broadcast before", "#broadcast after"} {
		if err := s.line(line, work); err != nil {
			t.Fatal(err)
		}
		s.putOut.Store(s.room())
	}
	s.flush()
	listener.Expect(`@mess #broadcast victim "before"`)
}

// TestRoomKickWakesLate: who went Home by itself before the owner's wake came stays
// connected.
func TestRoomKickWakesLate(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.Guest("owner").Ask("#createroom den", "@status 0")
	victim := srv.Guest("victim")
	victim.Ask("#changeroom den", "@status 0")
	s := srv.findOnline("victim")
	s.putOut.Store(s.room())
	victim.Ask("#ping gone-home", "@ret #ping gone-home")
	if s.room() != srv.rooms.home {
		t.Error("the victim is still in the room")
	}
	s.link.Wake()
	victim.Ask("#ping still-here", "@ret #ping still-here")
}
