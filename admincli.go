package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

// runAdmin is "homeroom admin add|remove|list": who administers the server.
func runAdmin(env environment, flags *flag.FlagSet, args []string) int {
	settings := folderFlags(flags)
	file := flags.String("password-file", "", "take a new account's password from the first line of this `FILE`")
	if code, done := parse(flags, args, 2); done {
		return code
	}
	verb, name := flags.Arg(0), flags.Arg(1)
	words, known := map[string]int{"add": 2, "remove": 2, "list": 1}[verb]
	if !known || flags.NArg() != words {
		fmt.Fprintln(env.stderr, "usage: homeroom admin add NAME [-password-file FILE] | remove NAME | list")
		return exitUsage
	}
	cfg, err := settings()
	if err != nil {
		return report(env, err)
	}
	o, closeAll, err := openOperator(env.ctx, cfg, env.ask)
	if err != nil {
		return report(env, err)
	}
	switch verb {
	case "add":
		err = addAdmin(env, o, name, *file)
	case "remove":
		err = setAdmin(o, name, false)
	case "list":
		err = listAdmins(env, o)
	}
	return report(env, errors.Join(err, closeAll()))
}

// addAdmin makes an account an administrator's; one that is not there is made.
func addAdmin(env environment, o *operator, name, file string) error {
	err := setAdmin(o, name, true)
	if err == nil {
		fmt.Fprintf(env.stdout, "%s is an administrator now; the password of that account stays\n", name)
		return nil
	}
	var refused *refusedError
	if !errors.As(err, &refused) || refused.status != statusNoAccount {
		return err
	}
	password, err := newPassword(env, name, file)
	if err != nil {
		return err
	}
	line := appendQuoted([]byte("#createlogin "), name)
	line = append(appendQuoted(append(line, ' '), password), ` "Administrator" "-"`...)
	if err := o.do(string(line), "making the account "+name); err != nil {
		return err
	}
	if err := setAdmin(o, name, true); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s is an administrator now\n", name)
	return nil
}

// setAdmin gives an account a role.
func setAdmin(o *operator, name string, admin bool) error {
	line := string(appendQuoted([]byte("#role "), name)) + " " + roleWord(admin)
	return o.do(line, "changing the role of "+name)
}

// newPassword is the password of a new account: from a file, or asked for twice.
func newPassword(env environment, name, file string) (string, error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if first = strings.TrimSuffix(first, "\r"); first == "" {
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
	return askServer(env, flags, args, "#stats", func(a answer) {
		for _, line := range a.lines {
			key, value, _ := strings.Cut(line, " ")
			fmt.Fprintf(env.stdout, "%-22s %s\n", key, value)
		}
	})
}

// runReload is "homeroom reload": the running server reads its settings anew.
func runReload(env environment, flags *flag.FlagSet, args []string) int {
	return askServer(env, flags, args, "#reload", func(a answer) {
		if len(a.lines) == 0 {
			fmt.Fprintln(env.stdout, "the settings were read; nothing changed")
		}
		for _, line := range a.lines {
			fmt.Fprintln(env.stdout, splitWords(line, nil)[0])
		}
	})
}

// askServer asks the running server one thing and shows the answer.
func askServer(env environment, flags *flag.FlagSet, args []string, line string, show func(answer)) int {
	settings := folderFlags(flags)
	if code, done := parse(flags, args, 0); done {
		return code
	}
	cfg, err := settings()
	if err != nil {
		return report(env, err)
	}
	o, err := dialOperator(env.ctx, cfg.Server.Data)
	if err != nil {
		return report(env, err)
	}
	defer o.close()
	a, err := o.ask(line)
	if err == nil && !a.ok() {
		err = &refusedError{"the server refuses " + line, a}
	}
	if err == nil {
		show(a)
	}
	return report(env, err)
}
