package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"homeroom/datadir"
)

// runAdmin is "homeroom admin add|remove|list".
func runAdmin(env environment, flags *flag.FlagSet, args []string) int {
	find := folderFlags(flags, needsFolder)
	file := flags.String("password-file", "", "make a new account, with the password in the first line of this `FILE`")
	if code, done := parse(flags, args, 2); done {
		return code
	}
	verb, name := flags.Arg(0), flags.Arg(1)
	words, known := map[string]int{"add": 2, "remove": 2, "list": 1}[verb]
	if !known || flags.NArg() != words {
		fmt.Fprintln(env.stderr, "usage: homeroom admin add NAME [-password-file FILE] | remove NAME | list")
		return exitUsage
	}
	pipe, err := os.Stat(*file)                                                  // which can be read once only
	if verb == "add" && *file != "" && (err != nil || pipe.Mode().IsRegular()) { // a password that is none is to change nothing
		if _, err := newPassword(env, name, *file); err != nil {
			return report(env, err)
		}
	}
	t, err := find()
	if err != nil {
		return report(env, err)
	}
	made := func() { fmt.Fprintf(env.stdout, "there is no database in %s yet; it is made now\n", t.folder()) }
	if verb != "add" {
		made = nil
	}
	o, closeAll, err := openOperator(env, &t, made)
	if err != nil {
		return t.report(env, err)
	}
	said := env.stdout
	switch verb {
	case "add":
		err = addAdmin(env, o, name, *file)
	case "remove":
		err = setAdmin(o, name, false)
	case "list":
		err, said = listAdmins(env, o), env.stderr // a program counts on names alone
	}
	if err = errors.Join(err, closeAll()); err == nil {
		t.sayFolder(said)
	}
	return t.report(env, err)
}

// addAdmin makes an account an administrator's; one that is not there is made.
// With a file that holds the password it must be a new one: somebody else may have
// taken the name, and must not get the role with a password of theirs.
func addAdmin(env environment, o *operator, name, file string) error {
	if file != "" {
		return newAdmin(env, o, name, file)
	}
	err := setAdmin(o, name, true)
	if err == nil {
		fmt.Fprintf(env.stdout, "%s is an administrator now; the account existed already and keeps its password\n", name)
	}
	if isRefused(err, statusNoAccount) {
		return newAdmin(env, o, name, file)
	}
	return err
}

// newAdmin makes an administrator's account. That the server makes none whose name
// is taken is the check: it cannot be taken between that and the role.
func newAdmin(env environment, o *operator, name, file string) error {
	password, err := newPassword(env, name, file)
	if err != nil {
		return err
	}
	line := appendQuoted([]byte("#createlogin "), name)
	line = append(appendQuoted(append(line, ' '), password), ` "Administrator" "-"`...)
	err = o.do(string(line), "making the account "+name)
	if isRefused(err, statusNameTaken) {
		return fmt.Errorf("%w; nothing was changed: without -password-file that account becomes an administrator's "+
			"and keeps its password; #resetpass in `homeroom console` gives it another one", err)
	}
	if err != nil {
		return err
	}
	if err := setAdmin(o, name, true); err != nil {
		return fmt.Errorf("the account %s was made, but is no administrator's; do this again without -password-file: %w", name, err)
	}
	fmt.Fprintf(env.stdout, "%s is an administrator now\n", name)
	return nil
}

// isRefused reports whether the server did not do something for this reason.
func isRefused(err error, why status) bool {
	var refused *refusedError
	return errors.As(err, &refused) && refused.status == why
}

// setAdmin gives an account a role.
func setAdmin(o *operator, name string, admin bool) error {
	line := string(appendQuoted([]byte("#role "), name)) + " " + roleWord(admin)
	return o.do(line, "changing the role of "+name)
}

// newPassword is the password of a new account: from a file, or asked for twice.
func newPassword(env environment, name, file string) (string, error) {
	if file != "" {
		var text []byte
		err := datadir.Named(file, func() (err error) {
			text, err = os.ReadFile(file)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		first, _, _ := strings.Cut(strings.ReplaceAll(strings.TrimPrefix(string(text), "\ufeff"), "\r", "\n"), "\n")
		if first == "" {
			return "", fmt.Errorf("the first line of %s is empty; it must be the password", file)
		}
		return first, nil
	}
	if env.ask == nil {
		return "", errors.New("there is no terminal to ask for the password; use -password-file FILE")
	}
	password, err := env.ask("Password for " + name + ": ")
	if err != nil {
		return "", fmt.Errorf("asking for the password: %w", err)
	}
	again, err := env.ask("The same again: ")
	if err != nil {
		return "", fmt.Errorf("asking for the password: %w", err)
	}
	if password != again || password == "" {
		return "", errors.New("the two passwords differ, or are empty; nothing was changed")
	}
	return password, nil
}

// listAdmins lists the administrators among all accounts.
func listAdmins(env environment, o *operator) error {
	for after := ""; ; {
		a, err := o.ask(string(appendQuoted([]byte("#accounts "), after)) + " 1000")
		if err != nil {
			return err
		}
		for _, line := range a.lines {
			words := splitWords(line, nil)
			if after = words[0]; len(words) > 5 && words[5] == roleWord(true) {
				fmt.Fprintln(env.stdout, words[0])
			}
		}
		if len(a.lines) == 0 {
			return nil
		}
	}
}

// runStats is "homeroom stats": #stats of the running server.
func runStats(env environment, flags *flag.FlagSet, args []string) int {
	return askServer(env, flags, args, "#stats", func(folder string, a answer) {
		fmt.Fprintf(env.stdout, "%-22s %s\n", "data_folder", folder)
		for _, line := range a.lines {
			key, value, _ := strings.Cut(line, " ")
			fmt.Fprintf(env.stdout, "%-22s %s\n", key, value)
		}
	})
}

// runReload is "homeroom reload": the running server reads its settings anew.
func runReload(env environment, flags *flag.FlagSet, args []string) int {
	return askServer(env, flags, args, "#reload", func(folder string, a answer) {
		fmt.Fprintf(env.stdout, "data folder  %s\n", folder)
		if len(a.lines) == 0 {
			fmt.Fprintln(env.stdout, "the settings were read; nothing changed")
		}
		for _, line := range a.lines {
			fmt.Fprintln(env.stdout, splitWords(line, nil)[0])
		}
	})
}

// askServer asks the running server one thing and shows the answer.
func askServer(env environment, flags *flag.FlagSet, args []string, line string, show func(folder string, a answer)) int {
	find := folderFlags(flags, needsServer)
	if code, done := parse(flags, args, 0); done {
		return code
	}
	t, err := find()
	if err != nil {
		return report(env, err)
	}
	o, err := dialOperator(env.ctx, t.folder())
	if err != nil {
		return t.report(env, err)
	}
	defer o.close()
	a, err := o.ask(line)
	if err == nil && !a.ok() {
		err = &refusedError{"the server refuses " + line, a}
	}
	if err == nil {
		show(t.folder(), a)
	}
	return t.report(env, err)
}
