package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
)

// Check goes through all that is stored, whether a server uses it or not, as it
// is at one moment.
func Check(ctx context.Context, out io.Writer, folder string, src KeySource) error {
	db, release, err := openForReading(folder)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return errors.Join(fmt.Errorf("checking the database in %s: %w", folder, err), release())
	}
	err = checkAll(out, tx, src)
	return errors.Join(err, tx.Rollback(), release())
}

// checkAll checks the database's structure, then every record.
func checkAll(out io.Writer, tx *sql.Tx, src KeySource) error {
	wrong, err := checkStructure(out, tx)
	if err != nil {
		return explainDamage(err)
	}
	rows, err := keyRowsOf(tx)
	if err != nil {
		return explainDamage(err)
	}
	var seal *sealer
	if len(rows) == 0 {
		fmt.Fprintln(out, "nothing is sealed yet; the next start of the server does it")
	} else {
		keys, err := src.unlock(rows)
		if err != nil {
			return err
		}
		ring, err := newKeyRing(keys)
		if err != nil {
			return err
		}
		seal = &sealer{ring: ring}
	}
	for k := range Kinds {
		n, err := checkKind(out, tx, k, seal)
		if err != nil {
			return fmt.Errorf("checking the %ss: %w", k, err)
		}
		wrong += n
	}
	if wrong > 0 {
		return fmt.Errorf("%d things are wrong; restore a backup, or start the server to see what still works", wrong)
	}
	fmt.Fprintln(out, "all is well")
	return nil
}

// checkStructure has SQLite check the database and says what it finds.
func checkStructure(out io.Writer, q querier) (wrong int, err error) {
	rows, err := q.Query("PRAGMA integrity_check")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var found string
		if err := rows.Scan(&found); err != nil {
			return wrong, err
		}
		if found != "ok" {
			wrong++
			fmt.Fprintln(out, "database:", found)
		}
	}
	if err := rows.Err(); err != nil {
		return wrong, err
	}
	var version int
	if err := q.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return wrong, err
	}
	foreign, err := foreignSchema(q, min(version, len(migrations)))
	for _, part := range foreign {
		wrong++
		fmt.Fprintln(out, "schema:", part)
	}
	return wrong, err
}

// checkKind opens all records of a kind and says how many there are.
func checkKind(out io.Writer, q querier, k Kind, seal *sealer) (wrong int, err error) {
	count := 0
	err = eachPage(q, k, func(page []Record) error {
		for _, r := range page {
			count++
			if err := checkRecord(r, seal); err != nil {
				wrong++
				fmt.Fprintln(out, err)
			}
		}
		return nil
	})
	fmt.Fprintf(out, "%ss: %d, of which %d cannot be read\n", k, count, wrong)
	return wrong, err
}

// checkRecord opens one record and takes it apart.
func checkRecord(r Record, seal *sealer) error {
	if seal != nil {
		if err := seal.open(&r); err != nil {
			return err
		}
	}
	for _, packed := range [][]byte{r.Head, r.Body} {
		if _, err := Unpack(packed, 0); err != nil {
			return fmt.Errorf("%s %d: %w", r.Kind, r.ID, err)
		}
	}
	return nil
}
