package schema_test

import (
	"fmt"
	"net/netip"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func ExampleParseRecord() {
	rec, err := schema.ParseRecord("v=TLSRPTv1; rua=mailto:tls%2Freports@Example.com,https://example.com/v1/tlsrpt,reports@example.net")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, rua := range rec.RUA {
		fmt.Println(rua.Scheme(), rua.Host(), rua)
	}
	for _, fault := range rec.Faults {
		fmt.Println("fault:", fault)
	}
	// Output:
	// mailto example.com mailto:tls%2Freports@example.com
	// https example.com https://example.com/v1/tlsrpt
	// fault: malformed rua "reports@example.net": it has no scheme, such as "mailto:"
}

func ExampleReport_Encode() {
	day, err := schema.ParseDay("2026-11-22")
	if err != nil {
		fmt.Println(err)
		return
	}
	r := schema.Report{
		OrganizationName: "Example Inc.",
		DateRange:        day.Range(),
		ContactInfo:      "tls-reports@example.com",
		ReportID:         schema.ReportID(day, "example.net", "0a1b2c3d", "example.com"),
		Policies: []schema.PolicyResult{{
			Policy:  schema.Policy{Type: schema.NoPolicyFound, Domain: "example.net"},
			Summary: schema.Summary{Success: 41, Failure: 1},
			FailureDetails: []schema.FailureDetails{{
				ResultType:          schema.StartTLSNotSupported,
				ReceivingMXHostname: "mx.example.net",
				ReceivingIP:         netip.MustParseAddr("192.0.2.1"),
				FailedSessionCount:  1,
			}},
		}},
	}
	data, err := r.Encode()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(string(data))
	// Output:
	// {
	//   "organization-name": "Example Inc.",
	//   "date-range": {
	//     "start-datetime": "2026-11-22T00:00:00Z",
	//     "end-datetime": "2026-11-22T23:59:59Z"
	//   },
	//   "contact-info": "tls-reports@example.com",
	//   "report-id": "2026-11-22.example.net.0a1b2c3d@example.com",
	//   "policies": [
	//     {
	//       "policy": {
	//         "policy-type": "no-policy-found",
	//         "policy-domain": "example.net"
	//       },
	//       "summary": {
	//         "total-successful-session-count": 41,
	//         "total-failure-session-count": 1
	//       },
	//       "failure-details": [
	//         {
	//           "result-type": "starttls-not-supported",
	//           "receiving-mx-hostname": "mx.example.net",
	//           "receiving-ip": "192.0.2.1",
	//           "failed-session-count": 1
	//         }
	//       ]
	//     }
	//   ]
	// }
}
