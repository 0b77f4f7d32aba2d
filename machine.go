package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kardianos/service"
)

// machine is the system that the service is on.
type machine struct {
	ctx      context.Context
	out      io.Writer // what was done
	platform string    // its service manager
	self     string    // the program that runs now

	// Tests have other ones.
	root    string                                       // in front of every path; ""
	run     func(name string, args ...string) error      // runs a program of the system
	has     func(name string) bool                       // whether there is such a program
	connect func(script string) (manager, error)         // connectManager
	ready   func(ctx context.Context, cfg *config) error // waits until the server answers
	show    func(command []string) error                 // runs a program whose output somebody wants to see
}

// at is where a path is on the machine.
func (m *machine) at(path string) string { return m.root + path }

// say tells what was done.
func (m *machine) say(format string, args ...any) { fmt.Fprintf(m.out, format+"\n", args...) }

// errNotRoot is that a command wants rights that its user has not.
type errNotRoot struct{ command string }

func (e errNotRoot) Error() string {
	return "this needs the rights of root: sudo homeroom " + e.command
}

// thisMachine is this machine, if it has a service manager that can be used.
func thisMachine(env environment) (*machine, error) {
	platform := service.Platform()
	first, _ := os.ReadFile("/proc/1/comm")
	_, inittab := os.Stat("/etc/inittab")
	if platform == onSysV && strings.TrimSpace(string(first)) != "init" && inittab != nil {
		platform = "" // the library takes SysV where it finds nothing else
	}
	switch platform {
	case onSystemd, onOpenRC, onSysV:
	default:
		return nil, errors.New("found neither systemd nor OpenRC nor SysV init here, which would run the service; " +
			"run `homeroom` by what this system has for that")
	}
	return &machine{ctx: env.ctx, out: env.stdout, platform: platform, self: "/proc/self/exe",
		run: runProgram, has: hasProgram, connect: connectManager, ready: waitReady,
		show: func(command []string) error { return showLog(env, command) }}, nil
}

// runProgram runs a program of the system; its error holds what the program said.
func runProgram(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, visible(string(bytes.TrimSpace(out))))
	}
	return nil
}

func hasProgram(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// installed says whether the machine has the service.
func (m *machine) installed() bool {
	return exists(m.unitFile()) || m.packaged() != ""
}

// packaged is the unit that a package of the system has put there, or "".
func (m *machine) packaged() string {
	for _, folder := range []string{"/usr/lib/systemd/system", "/lib/systemd/system"} {
		if path := filepath.Join(folder, serviceName+".service"); m.platform == onSystemd && exists(m.at(path)) {
			return path
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// systemUser is a user or a group of the system.
type systemUser struct {
	name, home string
	id, group  int
}

// findUser looks a name up in /etc/passwd or /etc/group.
func (m *machine) findUser(file, name string) (found systemUser, ok bool) {
	text, _ := os.ReadFile(m.at(file)) // without it there are none
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 4 || fields[0] != name {
			continue
		}
		id, err := strconv.Atoi(fields[2])
		if err != nil {
			continue
		}
		found = systemUser{name: name, id: id}
		if len(fields) >= 6 {
			found.home = fields[5]
			found.group, _ = strconv.Atoi(fields[3]) // the system wrote it
		}
		return found, true
	}
	return systemUser{}, false
}

// user is the user that the service runs as.
func (m *machine) user() (systemUser, bool) { return m.findUser("/etc/passwd", serviceName) }

// makeUser makes the service's group and user where they are missing.
func (m *machine) makeUser() error {
	user, ok := m.user()
	if ok && user.home != serviceData && user.id >= 1000 {
		return fmt.Errorf("there is a user %s already, with the home %s, who is somebody else; the service needs that name", serviceName, user.home)
	}
	if _, there := m.findUser("/etc/group", serviceName); !there {
		if err := m.runFirst([]string{"groupadd", "--system", serviceName}, []string{"addgroup", "-S", serviceName}); err != nil {
			return fmt.Errorf("cannot make the group %s: %w", serviceName, err)
		}
	}
	if ok {
		return nil
	}
	err := m.runFirst(
		[]string{"useradd", "--system", "--gid", serviceName, "--home-dir", serviceData, "--no-create-home",
			"--shell", m.noLogin(), "--comment", "Homeroom", serviceName},
		[]string{"adduser", "-S", "-D", "-H", "-h", serviceData, "-s", m.noLogin(), "-G", serviceName, serviceName})
	if err != nil {
		return fmt.Errorf("cannot make the user %s: %w", serviceName, err)
	}
	m.say("made the user and the group %s", serviceName)
	return nil
}

// noLogin is the shell of who has none.
func (m *machine) noLogin() string {
	for _, shell := range []string{"/usr/sbin/nologin", "/sbin/nologin"} {
		if exists(m.at(shell)) {
			return shell
		}
	}
	return "/bin/false"
}

// runFirst runs the first of these whose program is there.
func (m *machine) runFirst(choices ...[]string) error {
	var names []string
	for _, c := range choices {
		if m.has(c[0]) {
			return m.run(c[0], c[1:]...)
		}
		names = append(names, c[0])
	}
	return fmt.Errorf("there is no %s", strings.Join(names, " and no "))
}

// removeUser removes the service's user and group, if installing has made them.
func (m *machine) removeUser() error {
	if user, ok := m.user(); ok {
		if user.home != serviceData {
			return nil
		}
		if err := m.runFirst([]string{"userdel", serviceName}, []string{"deluser", serviceName}); err != nil {
			return fmt.Errorf("cannot remove the user %s: %w", serviceName, err)
		}
	}
	if _, there := m.findUser("/etc/group", serviceName); there { // most systems remove it with its user
		if err := m.runFirst([]string{"groupdel", serviceName}, []string{"delgroup", serviceName}); err != nil {
			return fmt.Errorf("cannot remove the group %s: %w", serviceName, err)
		}
	}
	return nil
}
