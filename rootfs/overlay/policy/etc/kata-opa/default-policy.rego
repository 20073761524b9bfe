# The policy of the flavour `policy` from the boot on: everything is allowed, as in a guest without a policy, and a
# SetPolicy can put another one in its place. Replace this file to bake another one in; docs/policy.md tells how to
# write one, tests/samples/policy-one-command.rego is one that refuses something.

# The agent asks this package, and no other.
package agent_policy

# One rule per kind of request, named after its message. A request without a rule is refused, so this list is also
# what the agent of this version can do. Health (Check, Version) is never asked about.
default AddARPNeighborsRequest := true
default AddSwapPathRequest := true
default AddSwapRequest := true
default CloseStdinRequest := true
default CopyFileRequest := true
default CreateContainerRequest := true
default CreateSandboxRequest := true
default DestroySandboxRequest := true
default ExecProcessRequest := true
default GetDiagnosticDataRequest := true
default GetIPTablesRequest := true
default GetMetricsRequest := true
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default ListInterfacesRequest := true
default ListRoutesRequest := true
default MemAgentCompactConfig := true
default MemAgentMemcgConfig := true
default MemHotplugByProbeRequest := true
default OnlineCPUMemRequest := true
default PauseContainerRequest := true

# Both ReadStdout and ReadStderr. A refused read looks like the end of the stream.
default ReadStreamRequest := true

default RemoveContainerRequest := true
default RemoveStaleVirtiofsShareMountsRequest := true
default ReseedRandomDevRequest := true
default ResizeVolumeRequest := true
default ResumeContainerRequest := true
default SetGuestDateTimeRequest := true
default SetIPTablesRequest := true

# With `false` here, what is baked in stays in force.
default SetPolicyRequest := true

default SignalProcessRequest := true
default StartContainerRequest := true
default StatsContainerRequest := true
default TtyWinResizeRequest := true
default UpdateContainerRequest := true
default UpdateEphemeralMountsRequest := true
default UpdateInterfaceRequest := true
default UpdateRoutesRequest := true
default VolumeStatsRequest := true
default WaitProcessRequest := true
default WriteStreamRequest := true

# With `true` here, what the policy refuses is only logged: to find out what a policy is missing, never in production.
default AllowRequestsFailingPolicy := false
