package main

import (
	"context"
	"log/slog"
	"strings"

	"homeroom/logbook"
)

const (
	usualAccounts = 100  // lines of #accounts where nobody asks for a number
	mostAccounts  = 1000 // and at the most
)

// cmdAccounts is "#accounts [after name] [n]". Whoever wants all asks again with
// the last name, so nobody is held up however many there are.
func (s *session) cmdAccounts(words []string, r *reply) error {
	after, n := "", int64(usualAccounts)
	if len(words) > 0 {
		number, ok := parseNumber(words[len(words)-1])
		if len(words) == 2 && !ok || ok && number < 1 {
			return fail(statusBadArgs)
		}
		if ok {
			n, words = min(number, mostAccounts), words[:len(words)-1]
		}
	}
	if len(words) > 0 {
		after = strings.ToLower(words[0])
		if name, err := userName(words[0]); err == nil {
			after = name.key
		}
	}
	page := s.srv.users.page(after, int(n))
	r.list("accounts", len(page))
	for _, a := range page {
		s.srv.showAccount(r, a)
	}
	return nil
}

// showAccount adds one row of #accounts.
func (srv *server) showAccount(r *reply, a accountLine) {
	state, from, room, seen := "offline", "-", "-", a.account.seen.Load()
	if s := a.online; s != nil {
		state, seen = "online", srv.now().Unix()
		if s.addr.IsValid() {
			from = s.addr.String()
		}
		if p := s.room(); p != nil {
			room = p.name.shown
		}
	}
	banned := "ok"
	if srv.bans.find(nameBan(a.account.name).key) != nil {
		banned = "banned"
	}
	r.row(named(a.account.name.shown), word(state), word(from), named(room), word(banned), word(roleWord(a.account.admin.Load())), num(seen))
}

// cmdWho is "#who": everybody who is logged in, guests too.
func (s *session) cmdWho(_ []string, r *reply) error {
	online := s.srv.users.everybody()
	r.list("who", len(online))
	for _, o := range online {
		from, room, group := "-", "-", "-"
		if o.session.addr.IsValid() {
			from = o.session.addr.String()
		}
		if p := o.session.room(); p != nil {
			room = p.name.shown
		}
		if g := o.session.group(); g != nil {
			group = g.name.shown
		}
		r.row(named(o.who.name.shown), word(o.who.kind()), word(from), named(room), named(group))
	}
	return nil
}

// cmdKick is `#kick <uname> ["reason"]`.
func (s *session) cmdKick(words []string, _ *reply) error {
	other := s.srv.findOnline(words[0])
	if other == nil {
		return fail(statusNotFound)
	}
	reason := strings.Join(words[1:], " ")
	other.end(warningFrame("you were disconnected by " + s.shownName() + because(reason)))
	return nil
}

// cmdAnnounce is `#announce "<text>"`.
func (s *session) cmdAnnounce(words []string, _ *reply) error {
	s.srv.announce(messFrame("announce", s.shownName(), words[0]))
	return nil
}

// cmdRole is "#role <uname> user/admin". It holds at once.
func (s *session) cmdRole(words []string, _ *reply) error {
	admin := words[1] == roleWord(true)
	if !admin && words[1] != roleWord(false) {
		return fail(statusBadArgs)
	}
	a := s.srv.findAccount(words[0])
	if a == nil {
		return fail(statusNoAccount)
	}
	return s.srv.setRole(a, admin)
}

// cmdResetPass is "#resetpass <uname> <new password>". Whoever is logged in to the
// account is disconnected.
func (s *session) cmdResetPass(words []string, _ *reply) error {
	if !s.takesPlain() {
		return fail(statusDisabled)
	}
	password, err := s.srv.newPassword(words[1])
	if err != nil {
		return err
	}
	a := s.srv.findAccount(words[0])
	if a == nil {
		return fail(statusNoAccount)
	}
	stored, err := s.srv.readAccount(a)
	if err != nil {
		return err
	}
	if err := s.storePassword(a, stored, password, whateverChanged); err != nil {
		return err
	}
	s.endAccount(a, "your password was changed by "+s.shownName())
	return nil
}

// endAccount ends the session of an account, unless it is this one.
func (s *session) endAccount(a *account, why string) {
	s.srv.endSessions(warningFrame(why), func(other *session, i *identity) bool {
		return other != s && i != nil && i.account == a
	})
}

// cmdRmUser is "#rmuser <uname>".
func (s *session) cmdRmUser(words []string, _ *reply) error {
	a := s.srv.findAccount(words[0])
	if a == nil {
		return fail(statusNoAccount)
	}
	if a == s.who.Load().account {
		return s.cmdRmLogin(nil, nil)
	}
	if err := s.srv.removeAccount(a); err != nil {
		return err
	}
	s.endAccount(a, "your account was deleted by "+s.shownName())
	return nil
}

// usualLog is how many lines #log shows where nobody asks for a number.
const usualLog = 20

// cmdLog is "#log [n]": the last lines of the log.
func (s *session) cmdLog(words []string, r *reply) error {
	n := int64(usualLog)
	if len(words) > 0 {
		var ok bool
		if n, ok = parseNumber(words[0]); !ok || n < 1 {
			return fail(statusBadArgs)
		}
	}
	lines := s.srv.log.Last(int(min(n, logbook.Kept)))
	r.list("log", len(lines))
	for _, line := range lines {
		r.row(quoted(line))
	}
	return nil
}

// cmdWatchLog is "#watchlog on/off": from now on each line of the log, until the
// session is somebody else's or no administrator's any more.
func (s *session) cmdWatchLog(words []string, _ *reply) error {
	if words[0] != "on" && words[0] != "off" {
		return fail(statusBadArgs)
	}
	s.endWatch()
	if who := s.who.Load(); words[0] == "on" {
		s.watch = s.srv.log.Watch(func(line string) {
			if s.who.Load() == who && who.isAdmin() {
				s.put(eventFrame("log", quoted(line)))
			}
		})
	}
	return nil
}

// endWatch stops sending the log.
func (s *session) endWatch() {
	if s.watch != nil {
		s.watch()
		s.watch = nil
	}
}

// audit logs an administrator's command, without its secrets.
func (s *session) audit(c *command, who string, words []string) {
	line := c.name
	for _, w := range words[:min(len(words), c.audit)] {
		line += " " + string(appendName(nil, w))
	}
	s.auditLine(who, line)
}

// auditLine logs what somebody did by a role.
func (s *session) auditLine(who, line string) {
	slog.Log(context.Background(), logbook.LevelAudit, "administration", "by", who, "from", s.from(), "command", line)
}

// from is where the session comes from, for the log.
func (s *session) from() string {
	if s.host {
		return "console"
	}
	return s.addr.String()
}

// refuseAdmin answers a user who is no administrator, and logs the attempt.
func (s *session) refuseAdmin(c *command) error {
	slog.Warn("a command for administrators was refused", "command", c.name, "user", s.shownName(), "from", s.from())
	return fail(statusNotAdmin)
}
