package main

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
)

// access says who may use a command.
type access uint8

const (
	forAll access = iota
	forUsers
	forAccounts
	forAdmins
)

// command is one row of the command table. It drives dispatch, the checks that
// all commands share, and #help.
type command struct {
	name   string // as help shows it, with its #
	args   string
	help   string
	who    access
	least  int  // words after the command
	most   int  // anyNumber: the handler checks
	text   bool // the last word is free text: more words are joined to it
	run    func(*session, []string, *reply) error
	host   bool // the operator on the control socket may use it too; they are in no room
	posted bool // lines of text follow: the session takes them before it runs anything
	waits  bool // it may wait for the disk or for a password's hash
	login  bool // its failures are refused logins
	always bool // it is never refused, whatever its words are, and costs nothing
	audit  int  // it is logged, with so many of its words at the most; 0: it is not

	// for people
	slash string                    // the word that they have for it; "": none
	row   func(cells []cell) string // a row of its reply
	done  func(*session) string     // what they hear when it was done; nil: nothing

	countAt int // the word of its @ret line that counts the lines after it; 0: none come
}

const anyNumber = -1

// commandRows is the table, in the order in which #help shows it.
func commandRows() []command {
	return []command{
		{name: "#help", args: "[command]", help: "what there is, or one command", most: 1, host: true, countAt: 2, run: (*session).cmdHelp, slash: "/help"},
		{name: "#version", help: "the protocol's and the program's version, and the extensions", host: true, run: (*session).cmdVersion},
		{name: "#ping", args: "[word]", help: "sends the word back", most: 1, host: true, run: (*session).cmdPing},
		{name: "#quit", help: "ends the connection", most: anyNumber, always: true, host: true, run: (*session).cmdQuit, slash: "/quit", done: func(*session) string { return "Goodbye." }},

		{name: "#login", args: "anon <username> | regd <username> <password>", help: "log in as a guest, or to your account", most: anyNumber, waits: true, login: true, run: (*session).cmdLogin, done: welcome},
		{name: "#auth", args: `SCRAM-SHA-256 "<client-first>" | "<client-final>"`, help: "log in without sending your password", least: 1, most: 2, waits: true, login: true, run: (*session).cmdAuth},
		{name: "#challenge", help: `a random word; then: #login regd <username> md5:<hex of MD5(word + password)>`, run: (*session).cmdChallenge},
		{name: "#createlogin", args: "<name> <password> <real name> <email id>", help: "make an account; then log in to it", who: forUsers, least: 4, most: 4, waits: true, host: true, run: (*session).cmdCreateLogin},
		{name: "#changepass", args: "<new password> <old password>", help: "change your account's password", who: forAccounts, least: 2, most: 2, waits: true, run: (*session).cmdChangePass},
		{name: "#rmlogin", help: "delete your account", who: forAccounts, waits: true, run: (*session).cmdRmLogin},
		{name: "#whoami", help: "your name, room, users in it, group and its number", who: forUsers, host: true, run: (*session).cmdWhoami},

		{name: "#listrooms", help: "name, owner, users, seconds to live, pub/priv, anon/regd", who: forUsers, host: true, countAt: 2, run: (*session).cmdListRooms, slash: "/rooms", row: roomRow},
		{name: "#listusers", help: "the users of your room", who: forUsers, countAt: 2, run: (*session).cmdListUsers, slash: "/who", row: personRow},
		{name: "#createroom", args: `<name> [password or ""] [anon/regd]`, help: "make a room; regd: for accounts only", who: forUsers, least: 1, most: 3, waits: true, run: (*session).cmdCreateRoom},
		{name: "#rmroom", args: "<name> [password]", help: "delete your room, once it is empty", who: forUsers, least: 1, most: 2, waits: true, run: (*session).cmdRmRoom},
		{name: "#changeroom", args: "<name> [password] [anon/regd]", help: "go to a room", who: forUsers, least: 1, most: 3, waits: true, run: (*session).cmdChangeRoom, slash: "/join", done: arrival},
		{name: "#broadcast", args: "<text>", help: "say something to your room", who: forUsers, least: 1, most: 1, text: true, run: (*session).cmdBroadcast},
		{name: "#sendto", args: "<username> <text>", help: "say something to one user of your room", who: forUsers, least: 2, most: 2, text: true, run: (*session).cmdSendTo, slash: "/msg", done: func(*session) string { return "Sent." }},
		{name: "#peer2peer", args: "<username> <port> <ip>", help: "tell a user where your program listens", who: forUsers, least: 3, most: 3, run: (*session).cmdPeer2Peer},
		{name: "#archstatus", help: "a number that changes when a room is added or deleted", who: forUsers, host: true, run: (*session).cmdArchStatus},
		{name: "#roomstatus", help: "a number that changes when a user enters or leaves any room", who: forUsers, host: true, run: (*session).cmdRoomStatus},
		{name: "#userstatus", help: "a number that changes when a user enters or leaves your room", who: forUsers, run: (*session).cmdUserStatus},

		{name: "#listgroups", help: "name, owner, number, messages, users, seconds to live, pub/priv, anon/regd", who: forUsers, host: true, countAt: 2, run: (*session).cmdListGroups},
		{name: "#creategroup", args: `<name> [password or ""] [anon/regd] [secs]`, help: "make a message group; without anon it is for accounts only", who: forUsers, least: 1, most: 4, waits: true, run: (*session).cmdCreateGroup},
		{name: "#joingroup", args: "<name> [password]", help: "go to a group, and leave the one you were in", who: forUsers, least: 1, most: 2, waits: true, run: (*session).cmdJoinGroup},
		{name: "#changegroup", args: "<name> [password]", help: "the same as #joingroup", who: forUsers, least: 1, most: 2, waits: true, run: (*session).cmdJoinGroup},
		{name: "#leavegroup", help: "leave your group", who: forUsers, run: (*session).cmdLeaveGroup},
		{name: "#listmessages", args: "[parent]", help: "heading, owner, number, parent, replies, seconds to live; parent 0: the top level", who: forUsers, most: 1, waits: true, countAt: 2, run: (*session).cmdListMessages},
		{name: "#getmessage", args: "<number>", help: "read a message", who: forUsers, least: 1, most: 1, waits: true, countAt: 3, run: (*session).cmdGetMessage},
		{name: "#rmmessage", args: "<number>", help: "delete your message, or one of your group, with its replies", who: forUsers, least: 1, most: 1, waits: true, run: (*session).cmdRmMessage},
		{name: "#postmessage", args: "<heading> [parent] [parts] [secs]", help: "post a message; then send its text, so many lines as parts says (1)", who: forUsers, least: 1, most: 4, posted: true},
		{name: "#messagestatus", help: "a number that changes when a message of your group is added or deleted", who: forUsers, run: (*session).cmdMessageStatus},
		{name: "#groupstatus", help: "a number that changes when a group is added or deleted", who: forUsers, host: true, run: (*session).cmdGroupStatus},

		{name: "#roomkick", args: "<username> [reason]", help: "put a user out of your room", who: forUsers, least: 1, most: 2, text: true, run: (*session).cmdRoomKick},
		{name: "#roomban", args: "<username> [reason]", help: "put a user out of your room, and keep that name out", who: forUsers, least: 1, most: 2, text: true, waits: true, run: (*session).cmdRoomBan},
		{name: "#roomunban", args: "<username>", help: "let a user into your room again", who: forUsers, least: 1, most: 1, waits: true, run: (*session).cmdRoomUnban},
		{name: "#roombans", help: "who is banned from your room", who: forUsers, countAt: 2, run: (*session).cmdRoomBans},
		{name: "#roompass", args: `<new password or "">`, help: `give your room another password; "": none`, who: forUsers, least: 1, most: 1, waits: true, run: (*session).cmdRoomPass},
		{name: "#roomgive", args: "<username>", help: "make a user the owner of your room", who: forUsers, least: 1, most: 1, waits: true, run: (*session).cmdRoomGive},

		{name: "#accounts", args: "[after name] [n]", help: "name, online, address, room, banned, role, last seen (Unix seconds)", who: forAdmins, most: 2, host: true, countAt: 2, run: (*session).cmdAccounts},
		{name: "#who", help: "who is logged in: name, anon/regd, address, room, group", who: forAdmins, host: true, countAt: 2, run: (*session).cmdWho},
		{name: "#stats", help: "how the server is: a name and a value a line", who: forAdmins, host: true, countAt: 2, run: (*session).cmdStats},
		{name: "#kick", args: "<username> [reason]", help: "disconnect a user", who: forAdmins, least: 1, most: 2, text: true, host: true, audit: 2, run: (*session).cmdKick},
		{name: "#ban", args: "<username or ip or ip/len> [secs] [reason]", help: "disconnect and keep out a name, an address or a network", who: forAdmins, least: 1, most: 3, text: true, waits: true, host: true, audit: 3, run: (*session).cmdBan},
		{name: "#unban", args: "<username or ip or ip/len>", help: "let them in again", who: forAdmins, least: 1, most: 1, waits: true, host: true, audit: 1, run: (*session).cmdUnban},
		{name: "#listbans", help: "target, until (Unix seconds; 0: for ever), by whom, reason", who: forAdmins, host: true, countAt: 2, run: (*session).cmdListBans},
		{name: "#announce", args: "<text>", help: "say something to everybody", who: forAdmins, least: 1, most: 1, text: true, host: true, audit: 1, run: (*session).cmdAnnounce},
		{name: "#suspend", args: "<minutes> [reason]", help: "only administrators may use the server", who: forAdmins, least: 1, most: 2, text: true, waits: true, host: true, audit: 2, run: (*session).cmdSuspend},
		{name: "#resume", help: "end the suspension", who: forAdmins, waits: true, host: true, audit: 1, run: (*session).cmdResume},
		{name: "#shutdown", args: "[reason]", help: "stop the server", who: forAdmins, most: 1, text: true, host: true, audit: 1, run: (*session).cmdShutdown},
		{name: "#restart", args: "[reason]", help: "start the server anew", who: forAdmins, most: 1, text: true, waits: true, host: true, audit: 1, run: (*session).cmdRestart},
		{name: "#reboot", args: "[reason]", help: "start the machine anew, where the settings allow it", who: forAdmins, most: 1, text: true, host: true, audit: 1, run: (*session).cmdReboot},
		{name: "#poweroff", args: "[reason]", help: "switch the machine off, where the settings allow it", who: forAdmins, most: 1, text: true, host: true, audit: 1, run: (*session).cmdPoweroff},
		{name: "#log", args: "[n]", help: "the last lines of the log", who: forAdmins, most: 1, host: true, countAt: 2, run: (*session).cmdLog},
		{name: "#watchlog", args: "on/off", help: "be told each line of the log", who: forAdmins, least: 1, most: 1, host: true, run: (*session).cmdWatchLog},
		{name: "#reload", help: "read the settings anew; says what changed", who: forAdmins, waits: true, host: true, audit: 1, countAt: 2, run: (*session).cmdReload},
		{name: "#role", args: "<username> user/admin", help: "make an administrator, or take that back", who: forAdmins, least: 2, most: 2, waits: true, host: true, audit: 2, run: (*session).cmdRole},
		{name: "#adduser", args: "<name> <password> <real name> <email>", help: "make an account for somebody", who: forAdmins, least: 4, most: 4, waits: true, host: true, audit: 1, run: (*session).cmdAddUser},
		{name: "#resetpass", args: "<username> <new password>", help: "give an account another password", who: forAdmins, least: 2, most: 2, waits: true, host: true, audit: 1, run: (*session).cmdResetPass},
		{name: "#rmuser", args: "<username>", help: "delete an account", who: forAdmins, least: 1, most: 1, waits: true, host: true, audit: 1, run: (*session).cmdRmUser},
		{name: "#rmgroup", args: "<name>", help: "delete a message group and all its messages; nobody may be in it", who: forAdmins, least: 1, most: 1, waits: true, host: true, audit: 1, run: (*session).cmdRmGroup},

		{name: "#events", args: "on/off", help: "be told who enters and leaves, and what is posted", who: forUsers, least: 1, most: 1, run: (*session).cmdEvents},
	}
}

// commandTable finds a command by its name in lower case.
func commandTable() map[string]*command {
	rows := commandRows()
	table := make(map[string]*command, len(rows))
	for i := range rows {
		table[rows[i].name] = &rows[i]
	}
	return table
}

// check applies the rules that all commands share and returns the words that
// the handler gets.
func (c *command) check(s *session, words []string) ([]string, error) {
	i := s.who.Load()
	if c.always {
		return words, nil
	}
	if c.who > forAll && i == nil {
		return nil, fail(statusNoLogin)
	}
	if c.who == forAdmins && !i.isAdmin() {
		return nil, s.refuseAdmin(c)
	}
	if c.who > forAll && s.srv.bans.suspended.Load() != nil && !i.isAdmin() {
		return nil, fail(statusSuspended)
	}
	if i != nil && i.host && !c.host || c.who == forAccounts && i.account == nil {
		return nil, fail(statusNoGuests)
	}
	if c.text && len(words) > c.most {
		words[c.most-1] = strings.Join(words[c.most-1:], " ")
		words = words[:c.most]
	}
	if c.most != anyNumber && (len(words) < c.least || len(words) > c.most) {
		return nil, fail(statusBadArgs)
	}
	return words, nil
}

// findCommand looks a line's first word up without regard to case.
func (srv *server) findCommand(word string) *command {
	if c := srv.commands[word]; c != nil {
		return c
	}
	return srv.commands[strings.ToLower(word)]
}

// command looks a command up, checks what all commands share, runs it and
// answers.
func (s *session) command(words []string, r *reply) error {
	c := s.srv.findCommand(words[0])
	r.command = c
	args := words[1:]
	if s.putOut.Load() != nil {
		if err := s.goHome(); err != nil {
			return err
		}
	}
	var err error
	if c == nil || !c.always {
		err = s.spend()
	}
	if c != nil && c.posted && !isFatal(err) {
		if err == nil {
			_, err = c.check(s, args)
		}
		before := s.post
		if err = s.startPost(args, err); s.post != before {
			return nil
		}
		return s.answer(err, r)
	}
	if err == nil && c == nil {
		err = fail(statusNoCommand)
	}
	if err == nil {
		if args, err = c.check(s, args); err == nil {
			if c.waits {
				s.flush()
			}
			err = s.run(c, args, r)
		}
	}
	if err != nil && c != nil && c.login {
		s.srv.counts.refusedLogins.Add(1)
	}
	return s.finish(err, r)
}

// finish answers, and then runs what must wait until the answer is on its way.
func (s *session) finish(err error, r *reply) error {
	then := r.then
	r.then = nil
	if err := s.answer(err, r); err != nil {
		return err
	}
	if then != nil {
		s.flush()
		then()
	}
	return nil
}

// run runs a command's handler. A fault in it is the command's failure, and no
// more.
func (s *session) run(c *command, args []string, r *reply) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("a fault in %s: %v\n%s", c.name, fault, debug.Stack())
		}
	}()
	who := s.shownName()
	err = c.run(s, args, r)
	if err == nil && c.audit > 0 {
		s.audit(c, who, args)
	}
	return err
}

// cmdHelp is "#help [command]"; the command's # may be left out.
func (s *session) cmdHelp(words []string, r *reply) error {
	if r.look == lookPlain {
		s.helpPerson(r)
		return nil
	}
	if len(words) == 1 {
		c := s.srv.findCommand("#" + strings.TrimPrefix(words[0], "#"))
		if c == nil {
			return fail(statusNoCommand)
		}
		r.list("help", 2)
		r.text(strings.TrimSpace(c.name + " " + c.args))
		r.text("  " + c.help)
		return nil
	}
	i := s.who.Load()
	rows := slices.DeleteFunc(commandRows(), func(c command) bool {
		return c.who == forAdmins && (i == nil || !i.isAdmin()) || i != nil && i.host && !c.host
	})
	r.list("help", len(rows))
	width := 0
	for _, c := range rows {
		width = max(width, len(c.name))
	}
	for _, c := range rows {
		r.text(c.name + strings.Repeat(" ", width-len(c.name)) + "  " + c.help)
	}
	return nil
}

// cmdVersion is "#version".
func (s *session) cmdVersion(_ []string, r *reply) error {
	names := slices.Clone(extensions)
	if s.srv.settings().Auth.ChallengeMD5 {
		names = append(names, "challenge")
	}
	slices.Sort(names)
	cells := []cell{word(protocolVersion), word("homeroom/" + version)}
	for _, e := range names {
		cells = append(cells, word(e))
	}
	r.ret("version", cells...)
	return nil
}

// cmdPing is "#ping [word]". The reply is a barrier: whatever this connection
// asked for before it has been done.
func (s *session) cmdPing(words []string, r *reply) error {
	if len(words) > 0 {
		r.ret("ping", named(words[0]))
	} else {
		r.ret("ping")
	}
	return nil
}

// cmdQuit is "#quit": the user has left before it is answered.
func (s *session) cmdQuit(_ []string, _ *reply) error {
	s.forgetIdentity(nil)
	return errQuit
}

// cmdEvents is "#events on/off".
func (s *session) cmdEvents(words []string, _ *reply) error {
	if words[0] != "on" && words[0] != "off" {
		return fail(statusBadArgs)
	}
	s.setEvents(words[0] == "on")
	return nil
}
