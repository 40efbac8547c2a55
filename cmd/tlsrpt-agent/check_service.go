package main

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"time"
)

// serviceUser is whom the service of our package runs as, and serviceGroups what
// its unit adds.
const serviceUser = "_tlsrpt-agent"

var serviceGroups = []string{"adm", "systemd-journal"}

// serviceAccount is the service's, if it is there and root looks: what root may do
// says nothing about what the service may.
func serviceAccount() (who account, ok bool) {
	if os.Geteuid() != 0 {
		return account{}, false
	}
	who, err := lookUpUser(serviceUser)
	if err != nil {
		return account{}, false
	}
	for _, name := range serviceGroups {
		g, err := user.LookupGroup(name)
		if err != nil {
			continue
		}
		if gid, err := strconv.ParseUint(g.Gid, 10, 32); err == nil {
			who.gids = append(who.gids, uint32(gid))
		}
	}
	return who, true
}

// checkSendmail looks at the command at path, which is there. It hands mail to
// postdrop(1), which is setgid: a service with NoNewPrivileges cannot become what
// that takes.
func checkSendmail(ctx context.Context, path string) finding {
	const check = "mail.via"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=NoNewPrivileges", "tlsrpt-agent.service").Output()
	if err == nil && strings.TrimSpace(string(out)) == "NoNewPrivileges=yes" {
		return wrong(check, "[mail]\nvia = \"smtp://localhost:25\"",
			"%s does not work in tlsrpt-agent.service: its NoNewPrivileges keeps postdrop(1) from its group", path)
	}
	return fine(check, "%s is there, and may be run", path) // without a service there is nothing against it
}
